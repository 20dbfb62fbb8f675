//! HTTP: requests by routes to endpoints. It must not accept connections.
