//! Bounds of a connection between proxies, each with its reason. It must not hold bounds that a user sets; those are in `MeshSettings`.

use std::time::Duration;

/// Streams that we open on one connection. HBONE peers take 200; half of it leaves room for streams that end on one side only.
pub const STREAMS: usize = 100;

/// Bytes that a peer may send on one stream before the application reads, if its pod has not many: half a MiB in flight is 4 Gbit/s at 1 ms.
pub const STREAM_WINDOW: u32 = 512 * 1024;

/// Bytes that peers may have on their way to all streams of one pod, about, so that a pod that does not read what it is sent cannot take the
/// memory of the others: 256 streams have the full window each, more share it.
pub const POD_WINDOWS: usize = 128 * 1024 * 1024;

/// However many they are, a stream has so much: 16 KiB in flight is 600 Mbit/s at 0.2 ms.
pub const STREAM_WINDOW_MIN: u32 = 16 * 1024;

/// Bytes that a peer may send on all streams of a connection: a full window for each of `streams`, so that applications that do not
/// read can never keep another stream of the connection from moving.
pub fn connection_window(streams: u32) -> u32 {
    // RFC 9113 §6.9.1: "A sender MUST NOT allow a flow-control window to exceed 2^31-1 octets".
    STREAM_WINDOW.saturating_mul(streams.max(1)).min(i32::MAX as u32)
}

/// Bytes of one stream that wait in us to be sent; more is back pressure on the application.
pub const SEND_BUFFER: usize = 256 * 1024;

/// Bytes of plaintext that TLS takes at once: eight records (RFC 8446 §5.1: 2^14 bytes each) that go out with one system call.
pub const RECORDS: usize = 8 * 16384;

/// Largest DATA frame that we take: few headers and few wake-ups for bulk, yet short enough that streams alternate (a millisecond at 1 Gbit/s).
/// With its head of nine bytes it fills [`RECORDS`], so that none goes out nearly empty.
pub const FRAME: u32 = RECORDS as u32 - 9;

/// Bytes read from a peer's connection at once: several TLS records with one system call. Each connection between proxies has so much.
pub const READ_AHEAD: usize = 64 * 1024;

/// Streams that we have reset and whose late frames we still know for what they are. A frame of a stream that is forgotten is answered with
/// a reset of our own making, and HTTP/2 libraries count these against the whole connection.
pub const RESETS_REMEMBERED: usize = 1024;

/// Resets of our own making for which a connection would be given up: no number is right for a connection that many share for days, and
/// whoever causes them is a proxy that has proven who it is. What it may open at once is bounded all the same.
pub const RESETS_MADE: Option<usize> = None;

/// A peer that is silent is asked at this pace whether it lives (HBONE peers do the same).
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// A peer that does not answer within this time is gone.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A pooled connection without a stream is closed after this time.
pub const IDLE: Duration = Duration::from_secs(90);

/// A peer's connection without a stream is closed after this time; longer than [`IDLE`], so that the client, who knows, closes first.
pub const SERVER_IDLE: Duration = Duration::from_secs(300);

/// Streams that may wait for one dial before another connection is dialled beside it: what one connection can serve.
pub const WAITERS: usize = STREAMS;

/// Wait for the mTLS port of a pod that is on its way into the mesh, where something may swallow what is sent there; then it is spoken to as
/// before. A dial within a cluster takes milliseconds.
pub const JOINING: Duration = Duration::from_secs(1);

/// Connections to one peer workload from one local workload. 25,600 streams; beyond, new ones are refused.
pub const CONNECTIONS: usize = 256;
