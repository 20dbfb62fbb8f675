//! Control: the config stream, the cache of the last config and the SVID client. It must not touch connections.
