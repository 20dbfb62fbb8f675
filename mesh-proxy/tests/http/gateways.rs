//! Gateways: listeners, TLS, streams and live changes.
