//! The socket that the CNI plugin speaks to: one request, one answer. It must not know how pods are captured.

use super::{
    listeners::Others,
    registry::{Sandbox, is_container_id},
    roster::{Answer, Ask},
};
use mesh_core::name::NsName;
use mesh_sys::{Netns, descriptors};
use mesh_wire::cni::{
    self, Broken, Error, Ok as Fine, PROTOCOL, Request, Response, request::Command, response::Result as Said,
};
use std::{
    fs, io,
    io::Write,
    net::IpAddr,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Calls that are served at once: a node starts its pods in bursts of about a hundred; more wait in the backlog.
const CALLS: usize = 128;

/// A plugin sends its request at once and takes the answer at once; anything slower is not the plugin.
const EXCHANGE: Duration = Duration::from_secs(5);

/// How often the socket's place is looked at: a proxy that was replaced, and whose successor failed, serves again.
const LOOK: Duration = Duration::from_secs(1);

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the socket and serves it until `stop`. It takes the place of whoever served it before; it comes back to its place when the one who
/// took it is gone.
pub async fn serve(
    path: &Path,
    asks: mpsc::Sender<Ask>,
    others: watch::Receiver<Others>,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let path = path.to_owned();
    let (mut listener, mut ours) = open(&path)?;
    let room = Arc::new(Semaphore::new(CALLS));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    let lost = others.borrow().connected == 0 && file(&path) != Some(ours);
                    if lost {
                        match open(&path) {
                            Ok(again) => (listener, ours) = again,
                            Err(error) => tracing::error!(%error, path = %path.display(), "the CNI socket is lost"),
                        }
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    let asks = asks.clone();
                    tokio::spawn(async move {
                        if let Err(broken) = answer(stream, asks).await {
                            tracing::warn!(fault = crate::fault::chain(&broken), "a CNI call was not completed");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept CNI calls; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // Gone is better than deaf: the plugin then knows at once. A successor's stays.
        if file(&path) == Some(ours) {
            let _ = fs::remove_file(path);
        }
    })
}

/// The socket in its place, and which file it is. Who may write to it may have pods captured or let go, so it is root's alone.
fn open(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = descriptors::serve_at(path)?;
    listener.set_nonblocking(true)?;
    let ours = file(path).ok_or(io::ErrorKind::NotFound)?;
    Ok((UnixListener::from_std(listener)?, ours))
}

/// Which file is at a path.
fn file(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

async fn answer(stream: tokio::net::UnixStream, asks: mpsc::Sender<Ask>) -> Result<(), Broken> {
    let stream = stream.into_std().map_err(Broken::Stream)?;
    let (mut stream, request, descriptor) = tokio::task::spawn_blocking(move || receive(stream))
        .await
        .map_err(|e| Broken::Stream(io::Error::other(e)))??;
    let said = match ask(request, descriptor, &asks).await {
        Ok(Answer::Done { meshed }) => Said::Ok(Fine { meshed }),
        Ok(Answer::Failed { message, retry }) => Said::Error(Error { message, retry }),
        Err(message) => Said::Error(Error { message, retry: false }),
    };
    let frame = cni::frame(&Response { result: Some(said) })?;
    tokio::task::spawn_blocking(move || stream.write_all(&frame))
        .await
        .map_err(|e| Broken::Stream(io::Error::other(e)))?
        .map_err(Broken::Stream)
}

/// Reads a request, and the descriptor that came with its first byte.
fn receive(stream: UnixStream) -> Result<(UnixStream, Request, Option<OwnedFd>), Broken> {
    let prepare = || {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(EXCHANGE))?;
        stream.set_write_timeout(Some(EXCHANGE))
    };
    prepare().map_err(Broken::Stream)?;
    let (body, descriptor) = descriptors::receive_frame(&stream, cni::length)?;
    Ok((stream, cni::parse(&body)?, descriptor))
}

/// Turns a request into an ask and waits for the answer; the error is a request that can never be served.
async fn ask(request: Request, descriptor: Option<OwnedFd>, asks: &mpsc::Sender<Ask>) -> Result<Answer, String> {
    if request.protocol != PROTOCOL {
        return Err(format!("the plugin speaks protocol {}, this proxy {PROTOCOL}", request.protocol));
    }
    let (reply, answered) = oneshot::channel();
    let ask = match request.command.ok_or("the request has no command that this proxy knows")? {
        Command::Add(add) => {
            let netns = descriptor.ok_or("ADD came without a network namespace")?;
            let netns = Netns::from_fd(netns).map_err(|e| format!("ADD: {}", crate::fault::chain(&e)))?;
            Ask::Add { sandbox: sandbox(add, &netns)?, netns: Arc::new(netns), reply }
        }
        Command::Del(del) => Ask::Del { container: del.container_id, netns: del.netns.into(), reply },
        Command::Check(check) => Ask::Check { container: check.container_id, reply },
        Command::Status(_) => Ask::Status { reply },
        Command::Gc(gc) => Ask::Gc { valid: gc.container_ids, reply },
    };
    let leaving = || Answer::Failed { message: "the node proxy is going away".into(), retry: true };
    if asks.send(ask).await.is_err() {
        return Ok(leaving());
    }
    Ok(answered.await.unwrap_or_else(|_| leaving()))
}

fn sandbox(add: cni::Add, netns: &Netns) -> Result<Sandbox, String> {
    if !is_container_id(&add.container_id) {
        return Err(format!("ADD: container_id {:?} is no container id", add.container_id));
    }
    for (field, value) in [("pod_namespace", &add.pod_namespace), ("pod_name", &add.pod_name)] {
        if value.is_empty() || value.contains('/') {
            return Err(format!("ADD: {field} {value:?} names nothing"));
        }
    }
    let address = |text: &String| text.parse::<IpAddr>().map_err(|_| format!("ADD: address {text:?} is none"));
    Ok(Sandbox {
        container: add.container_id,
        pod: NsName::new(add.pod_namespace, add.pod_name),
        uid: add.pod_uid,
        netns: add.netns.into(),
        netns_id: netns.id(),
        addresses: add.addresses.iter().map(address).collect::<Result<_, _>>()?,
        captured: false,
    })
}
