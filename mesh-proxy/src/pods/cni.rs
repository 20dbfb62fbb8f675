//! The socket that the CNI plugin speaks to: one request, one answer. It must not know how pods are captured.

use super::{
    registry::{Sandbox, is_container_id},
    roster::{Answer, Ask},
};
use mesh_core::name::NsName;
use mesh_sys::{Netns, descriptors};
use mesh_wire::cni::{
    self, Broken, Error, HEADER, Ok as Fine, PROTOCOL, Request, Response, request::Command, response::Result as Said,
};
use std::{
    fs, io,
    io::{Read, Write},
    net::IpAddr,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// Calls that are served at once: a node starts its pods in bursts of about a hundred; more wait in the backlog.
const CALLS: usize = 128;

/// A plugin sends its request at once and takes the answer at once; anything slower is not the plugin.
const EXCHANGE: Duration = Duration::from_secs(5);

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the socket and serves it until `stop`. A socket file of a dead predecessor is replaced; a living one's is an error.
pub async fn serve(
    path: &Path,
    asks: mpsc::Sender<Ask>,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    if fs::symlink_metadata(path).is_ok() {
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another proxy serves this socket")),
            Err(_) => fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    // Who may write to it may have pods captured or let go.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let path = path.to_owned();
    let room = Arc::new(Semaphore::new(CALLS));
    Ok(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
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
        // Gone is better than deaf: the plugin then knows at once.
        let _ = fs::remove_file(path);
    })
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
fn receive(mut stream: UnixStream) -> Result<(UnixStream, Request, Option<OwnedFd>), Broken> {
    let prepare = || {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(EXCHANGE))?;
        stream.set_write_timeout(Some(EXCHANGE))
    };
    prepare().map_err(Broken::Stream)?;
    let mut header = [0; HEADER];
    let (got, descriptor) = descriptors::receive(&stream, &mut header).map_err(Broken::Stream)?;
    if got == 0 {
        return Err(Broken::Stream(io::ErrorKind::UnexpectedEof.into()));
    }
    stream.read_exact(&mut header[got..]).map_err(Broken::Stream)?;
    let mut body = vec![0; cni::length(header)?];
    stream.read_exact(&mut body).map_err(Broken::Stream)?;
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
        Command::Del(del) => Ask::Del { container: del.container_id, reply },
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
