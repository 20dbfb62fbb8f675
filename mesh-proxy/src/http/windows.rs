//! Windows of HTTP/2 connections with clients and applications: how much may be on its way to who does not read. It must not hold those between
//! proxies; `tunnel::limits` does.
//!
//! A connection's window is the sum of its streams' windows, so that a stream that nobody reads never keeps another from moving. And the HTTP/2
//! library gives up a connection when the small frames that wait to be read are more than its window suggests: with as much for one stream as
//! for all of them, one slow reader of small messages ended the requests of all.

/// Bytes on their way on one stream: 40 Mbit/s for who is 50 ms away.
pub(super) const STREAM: u32 = 256 * 1024;

/// Most bytes that one client may have on their way to applications that do not read: 32 full streams.
const CLIENT_MAX: u32 = 8 * 1024 * 1024;

/// Of a connection from a client, who may be anybody.
pub(super) fn from_client(streams: u32) -> u32 {
    STREAM.saturating_mul(streams).clamp(STREAM, CLIENT_MAX)
}

/// Of a connection to an application, whose streams belong to many clients.
pub(super) fn to_application(streams: u32) -> u32 {
    // RFC 9113 §6.9.1: "A sender MUST NOT allow a flow-control window to exceed 2^31-1 octets".
    STREAM.saturating_mul(streams).min(i32::MAX as u32)
}
