//! Capture: the nftables ruleset of a meshed pod, as text. Pure; `mesh-sys` applies it. It must not run anything.

/// Mark on every socket of the proxy, exempt from capture.
pub const PROXY_MARK: u32 = 0x539;

/// Name of our table in a pod's network namespace (family inet).
pub const TABLE: &str = "heddle";

/// The ruleset that captures a pod: flushes and rebuilds our table in one transaction, so that applying it twice is the same as once.
pub fn ruleset() -> String {
    todo!("l4")
}

/// The text that removes our table; applying it where there is none is no error.
pub fn release() -> String {
    todo!("l4")
}
