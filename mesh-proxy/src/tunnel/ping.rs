//! Whether an HTTP/2 peer still answers. It must not close the connection; who drives it does.

use super::limits::{PING_EVERY, PING_TIMEOUT};
use h2::{Ping, PingPong};
use std::{future::poll_fn, task::Poll};
use tokio::time::{Duration, sleep, timeout};

/// The peer did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the peer answered no PING within {} s", .0.as_secs())]
pub struct Silent(pub Duration);

/// Ends when the peer no longer answers. Never ends while the connection is being closed; its driver does that.
pub async fn watch(pings: &mut PingPong) -> Silent {
    loop {
        sleep(PING_EVERY).await;
        match timeout(PING_TIMEOUT, once(pings)).await {
            Ok(Ok(())) => {}
            // The connection is closing, which its driver notices.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return Silent(PING_TIMEOUT),
        }
    }
}

/// Asks once and waits for the answer; somebody else must drive the connection meanwhile.
pub async fn once(pings: &mut PingPong) -> Result<(), h2::Error> {
    let mut sent = false;
    poll_fn(|cx| {
        if !sent {
            // Fails only while an earlier one is unanswered; then that answer is as good.
            let _ = pings.send_ping(Ping::opaque());
            sent = true;
        }
        match pings.poll_pong(cx) {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
