//! The holder: keeps the node proxy's listening sockets open, so that connections wait in their backlog while one proxy ends and another
//! begins; and tells the proxy which addresses are the host's own. It must not accept a connection of a pod.

use super::say;
use crate::fault::chain;
use mesh_sys::{address, descriptors, socket};
use mesh_wire::{
    cni::{Broken, frame, length, parse},
    holder::{
        Complete, FromHolder, Hello, HostAddresses, Listener, Others, PROTOCOL, ToHolder, from_holder::Message as Say,
        to_holder::Message as Heard,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Sockets that are kept: three for each of a node's pods, of which kubelets run 110 by default and at most some hundreds.
const LISTENERS_MAX: usize = 4096;

/// Proxies at once: the living one, its successor, and one that is going.
const PROXIES_MAX: usize = 8;

/// A proxy says who it is at once.
const HELLO: Duration = Duration::from_secs(5);

/// A proxy that does not take what it is told for so long is dropped; it dials again when it is well.
const WRITE: Duration = Duration::from_secs(1);

/// How often the host's addresses are read.
const ADDRESSES: Duration = Duration::from_secs(2);

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A kept socket's name: network namespace (device, inode) and port.
type Key = (u64, u64, u32);

/// What is kept, and for whom.
#[derive(Default)]
pub(super) struct Holder {
    kept: HashMap<Key, TcpListener>,
    proxies: BTreeMap<u64, Proxy>,
    next: u64,
    addresses: BTreeSet<IpAddr>,
}

struct Proxy {
    stream: Arc<UnixStream>,
    serving: bool,
}

/// Opens the socket; serves it on threads of its own from now on.
pub(super) fn start(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    mesh_sys::limit::raise_open_files()?;
    let listener = descriptors::serve_at(path)?;
    let holder: Arc<Mutex<Holder>> = Arc::default();
    lock(&holder).addresses = address::of_interfaces()?;
    let watched = holder.clone();
    thread::Builder::new().name("addresses".into()).spawn(move || watch_addresses(&watched))?;
    thread::Builder::new().name("holder".into()).spawn(move || accept(&listener, &holder))?;
    Ok(())
}

fn accept(listener: &UnixListener, holder: &Arc<Mutex<Holder>>) {
    loop {
        let taken = listener.accept().and_then(|(stream, _)| {
            if !descriptors::peer_is_root(&stream)? {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer is not root"));
            }
            if lock(holder).proxies.len() >= PROXIES_MAX {
                return Err(io::Error::other(format!("{PROXIES_MAX} proxies are connected already")));
            }
            stream.set_read_timeout(Some(HELLO))?;
            stream.set_write_timeout(Some(WRITE))?;
            let holder = holder.clone();
            thread::Builder::new().name("proxy".into()).spawn(move || {
                let stream = Arc::new(stream);
                if let Err(broken) = serve(&stream, &holder)
                    && !matches!(&broken, Broken::Stream(e) if e.kind() == io::ErrorKind::UnexpectedEof)
                {
                    say("WARN", &format!("a proxy's connection to the holder ended: {}", chain(&broken)));
                }
                lock(&holder).leave(&stream);
            })
        });
        if let Err(error) = taken {
            say("WARN", &format!("a connection to the holder was not taken: {error}"));
            thread::sleep(PAUSE);
        }
    }
}

/// Serves a proxy until it goes.
fn serve(stream: &Arc<UnixStream>, holder: &Mutex<Holder>) -> Result<(), Broken> {
    match receive(stream)? {
        (Some(Heard::Hello(Hello { protocol: PROTOCOL })), _) => {}
        (Some(Heard::Hello(Hello { protocol })), _) => {
            let what = format!("the proxy speaks protocol {protocol}, this holder {PROTOCOL}");
            return Err(Broken::Stream(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        _ => return Err(Broken::Stream(io::Error::new(io::ErrorKind::InvalidData, "no Hello came first"))),
    }
    // From here on it speaks when it has something to say.
    stream.set_read_timeout(None).map_err(Broken::Stream)?;
    let me = lock(holder).welcome(stream)?;
    loop {
        let (message, descriptor) = receive(stream)?;
        let mut holder = lock(holder);
        match (message, descriptor) {
            (Some(Heard::Put(listener)), Some(descriptor)) => holder.put(me, &listener, descriptor),
            (Some(Heard::Put(_)), None) => say("WARN", "a listener came without its socket"),
            (Some(Heard::Close(listener)), _) => drop(holder.kept.remove(&key(&listener))),
            (Some(Heard::Serving(serving)), _) => {
                if let Some(proxy) = holder.proxies.get_mut(&me) {
                    proxy.serving = serving.serving;
                }
                holder.tell_others();
            }
            // A newer proxy may say what we do not know.
            (Some(Heard::Hello(_)) | None, _) => {}
        }
    }
}

impl Holder {
    /// Tells a proxy all there is, and remembers it.
    fn welcome(&mut self, stream: &Arc<UnixStream>) -> Result<u64, Broken> {
        for (key, socket) in &self.kept {
            send(stream, Say::Held(named(*key)), Some(socket))?;
        }
        send(stream, Say::Complete(Complete {}), None)?;
        send(stream, host_addresses(&self.addresses), None)?;
        self.next += 1;
        self.proxies.insert(self.next, Proxy { stream: stream.clone(), serving: false });
        self.tell_others();
        Ok(self.next)
    }

    fn leave(&mut self, stream: &Arc<UnixStream>) {
        self.proxies.retain(|_, proxy| !Arc::ptr_eq(&proxy.stream, stream));
        self.tell_others();
    }

    fn put(&mut self, from: u64, listener: &Listener, descriptor: OwnedFd) {
        let key = key(listener);
        if self.kept.contains_key(&key) {
            return;
        }
        let port = u16::try_from(listener.port).unwrap_or_default();
        match socket::listening_on(descriptor, port) {
            Err(error) => say("WARN", &format!("a listener is not kept: {error}")),
            Ok(_) if self.kept.len() >= LISTENERS_MAX => {
                say("ERROR", &format!("a listener is not kept: there are {LISTENERS_MAX} already"));
            }
            Ok(socket) => {
                for proxy in self.proxies.iter().filter(|(id, _)| **id != from).map(|(_, proxy)| proxy) {
                    // It finds out when it reads; then it dials again and gets all.
                    let _ = send(&proxy.stream, Say::Held(*listener), Some(&socket));
                }
                self.kept.insert(key, socket);
            }
        }
    }

    fn tell_others(&self) {
        let serving = self.proxies.values().filter(|p| p.serving).count();
        for proxy in self.proxies.values() {
            let others = Others {
                connected: count(self.proxies.len().saturating_sub(1)),
                serving: count(serving - usize::from(proxy.serving)),
            };
            let _ = send(&proxy.stream, Say::Others(others), None);
        }
    }
}

/// Tells the proxies when the host's addresses change.
fn watch_addresses(holder: &Mutex<Holder>) {
    loop {
        thread::sleep(ADDRESSES);
        match address::of_interfaces() {
            Ok(now) => {
                let mut holder = lock(holder);
                if holder.addresses != now {
                    holder.addresses = now;
                    for proxy in holder.proxies.values() {
                        let _ = send(&proxy.stream, host_addresses(&holder.addresses), None);
                    }
                }
            }
            Err(error) => say("WARN", &format!("the host's addresses cannot be read: {error}")),
        }
    }
}

fn host_addresses(addresses: &BTreeSet<IpAddr>) -> Say {
    Say::HostAddresses(HostAddresses { addresses: addresses.iter().map(ToString::to_string).collect() })
}

fn key(listener: &Listener) -> Key {
    (listener.device, listener.inode, listener.port)
}

fn named((device, inode, port): Key) -> Listener {
    Listener { device, inode, port }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn send(stream: &UnixStream, message: Say, socket: Option<&TcpListener>) -> Result<(), Broken> {
    Ok(descriptors::send_frame(stream, &frame(&FromHolder { message: Some(message) })?, socket.map(AsFd::as_fd))?)
}

fn receive(stream: &UnixStream) -> Result<(Option<Heard>, Option<OwnedFd>), Broken> {
    let (body, descriptor) = descriptors::receive_frame(stream, length)?;
    Ok((parse::<ToHolder>(&body)?.message, descriptor))
}

/// A panic while holding the lock cannot leave the maps half changed.
fn lock(holder: &Mutex<Holder>) -> MutexGuard<'_, Holder> {
    holder.lock().unwrap_or_else(PoisonError::into_inner)
}
