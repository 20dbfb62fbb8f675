//! Accept loops: one connection, one task, within the workload's bound. It must not know what is served.

use crate::local::Local;
use mesh_core::fault::Fault;
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;

/// Pause after the process ran out of descriptors: accepting again at once would only burn the processor that could close some.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `stop`, and gives each connection to a task of its own by `each`. A workload at its bound has the connection reset and
/// `full` told. The tasks outlive the loop; they end with their connections or when those who serve them see their own `stop`.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    local: Arc<Local>,
    stop: CancellationToken,
    full: impl Fn(SocketAddr, Fault) + Send,
    each: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> F + Send,
) {
    // Its connections inherit this: six system calls fewer for each.
    if let Err(error) = mesh_sys::socket::tune(&listener) {
        tracing::warn!(%error, "the settings of accepted connections cannot be made");
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                match local.connection() {
                    Ok(permit) => {
                        tokio::spawn(each(stream, peer, permit));
                    }
                    Err(fault) => {
                        let _ = mesh_sys::socket::reset_on_close(&stream);
                        full(peer, fault);
                    }
                }
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// accept(2): errors of a connection that ended before it was taken; the listener is well.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
}
