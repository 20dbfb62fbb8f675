//! The pods' listening sockets: opened once for each namespace and port, and put into the keeping of the node's agent (its holder), so that
//! they outlive this process. It must not accept on them.
//!
//! Without `--holder-socket` they are kept here alone, and end with the process.

use crate::{fault::chain, local::Local};
use mesh_sys::{NetnsId, descriptors, socket};
use mesh_wire::{
    cni::{Broken, frame, length, parse},
    holder::{
        FromHolder, Hello, Listener, PROTOCOL, Serving, ToHolder, from_holder::Message as Heard,
        to_holder::Message as Say,
    },
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::sync::watch;

/// Wait at start for what the holder keeps: an agent that lives answers within milliseconds; one that does not must not delay the pods.
const TAKE: Duration = Duration::from_secs(2);

/// Bound of dialling the holder and of every write to it.
const EXCHANGE: Duration = Duration::from_secs(1);

/// Pause before the holder is dialled again.
const AGAIN: Duration = Duration::from_millis(250);

/// A listening socket's name.
type Key = (NetnsId, u16);

/// The other proxies of this node, as the holder sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How many there are.
    pub connected: u32,
    /// How many of them accept on all their listeners.
    pub serving: u32,
}

/// All listening sockets of this process, and those that another proxy of the node left or shares.
#[derive(Debug)]
pub struct Listeners {
    state: Mutex<State>,
    others: watch::Sender<Others>,
    host_addresses: watch::Sender<Arc<HashSet<IpAddr>>>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Key, TcpListener>,
    holder: Option<UnixStream>,
    serving: bool,
}

impl Listeners {
    /// Without a holder.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            others: watch::Sender::default(),
            host_addresses: watch::Sender::default(),
        })
    }

    /// With the holder on this socket: takes what it keeps, bounded in time, and stays connected on a thread of its own. Blocks.
    pub fn held(path: PathBuf) -> io::Result<Arc<Self>> {
        let listeners = Self::alone();
        let (taken, wait) = mpsc::channel();
        let here = Arc::downgrade(&listeners);
        thread::Builder::new().name("holder".into()).spawn(move || {
            let mut said = String::new();
            // Ends with the process, or with the last who wants the sockets.
            while let Some(here) = here.upgrade() {
                let broken = match here.converse(&path, &taken) {
                    Ok(never) => match never {},
                    Err(broken) => chain(&broken),
                };
                here.state.lock().holder = None;
                here.others.send_replace(Others::default());
                if broken != said {
                    tracing::warn!(path = %path.display(), fault = broken, "the agent does not hold the pods' listeners; trying again");
                    said = broken;
                }
                drop(here);
                thread::sleep(AGAIN);
            }
        })?;
        if wait.recv_timeout(TAKE).is_err() {
            tracing::warn!("the agent's holder does not answer: listeners are opened anew");
        }
        Ok(listeners)
    }

    /// The socket of a port in a pod's namespace: the one that is open, else a new one.
    pub fn open(&self, local: &Local, netns: NetnsId, port: u16) -> io::Result<TcpListener> {
        let mut state = self.state.lock();
        if let Some(open) = state.open.get(&(netns, port)) {
            return open.try_clone();
        }
        let opened = local.open(port)?;
        let kept = opened.try_clone()?;
        state.tell(Say::Put(named((netns, port))), Some(&kept));
        state.open.insert((netns, port), kept);
        Ok(opened)
    }

    /// Closes sockets here and in the holder; who accepts on them must stop by itself.
    pub fn close(&self, netns: NetnsId, ports: &[u16]) {
        let mut state = self.state.lock();
        for port in ports {
            if state.open.remove(&(netns, *port)).is_some() {
                state.tell(Say::Close(named((netns, *port))), None);
            }
        }
    }

    /// Closes the sockets of namespaces that nobody serves any more. Only for a proxy that is alone.
    pub fn close_except(&self, serves: impl Fn(NetnsId) -> bool) {
        let stale: Vec<Key> = self.state.lock().open.keys().filter(|(netns, _)| !serves(*netns)).copied().collect();
        for (netns, port) in &stale {
            self.close(*netns, &[*port]);
        }
        if !stale.is_empty() {
            tracing::info!(listeners = stale.len(), "closed listeners of pods that are gone");
        }
    }

    /// Says whether this proxy accepts on all its listeners.
    pub fn serving(&self, serving: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.serving, serving) != serving {
            state.tell(Say::Serving(Serving { serving }), None);
        }
    }

    /// The other proxies of this node.
    pub fn others(&self) -> watch::Receiver<Others> {
        self.others.subscribe()
    }

    /// Whether the holder keeps the sockets now.
    pub fn is_held(&self) -> bool {
        self.state.lock().holder.is_some()
    }

    /// Addresses of the node's own host; empty until the agent has told them.
    pub fn host_addresses(&self) -> watch::Receiver<Arc<HashSet<IpAddr>>> {
        self.host_addresses.subscribe()
    }

    /// One connection to the holder, until it breaks.
    fn converse(&self, path: &Path, taken: &mpsc::Sender<()>) -> Result<std::convert::Infallible, Broken> {
        let stream = descriptors::dial(path, EXCHANGE).map_err(Broken::Stream)?;
        if !descriptors::peer_is_root(&stream).map_err(Broken::Stream)? {
            return Err(Broken::Stream(io::Error::new(io::ErrorKind::PermissionDenied, "the holder is not root's")));
        }
        send(&stream, Say::Hello(Hello { protocol: PROTOCOL }), None)?;
        loop {
            let (message, descriptor) = receive(&stream)?;
            match message {
                Some(Heard::Held(listener)) => self.take(&listener, descriptor),
                Some(Heard::Complete(_)) => {
                    // It speaks when it has something to say.
                    stream.set_read_timeout(None).map_err(Broken::Stream)?;
                    self.give(stream.try_clone().map_err(Broken::Stream)?)?;
                    // Heard by nobody after the first time.
                    let _ = taken.send(());
                }
                Some(Heard::Others(o)) => {
                    self.others.send_replace(Others { connected: o.connected, serving: o.serving });
                }
                Some(Heard::HostAddresses(told)) => {
                    let addresses = told.addresses.iter().filter_map(|a| a.parse().ok()).collect();
                    self.host_addresses.send_replace(Arc::new(addresses));
                }
                // A newer holder may say what we do not know.
                None => {}
            }
        }
    }

    /// A socket that another proxy opened.
    fn take(&self, listener: &Listener, descriptor: Option<OwnedFd>) {
        let Ok(port) = u16::try_from(listener.port) else { return };
        let socket = descriptor
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it came without its socket"))
            .and_then(|descriptor| socket::listening_on(descriptor, port));
        match socket {
            Ok(socket) => {
                let netns = NetnsId { device: listener.device, inode: listener.inode };
                self.state.lock().open.entry((netns, port)).or_insert(socket);
            }
            Err(error) => tracing::warn!(%error, port, "a listener that the agent holds cannot be used"),
        }
    }

    /// Puts everything that is open; a holder that has it already keeps what it has.
    fn give(&self, holder: UnixStream) -> Result<(), Broken> {
        let mut state = self.state.lock();
        for (key, socket) in &state.open {
            send(&holder, Say::Put(named(*key)), Some(socket))?;
        }
        send(&holder, Say::Serving(Serving { serving: state.serving }), None)?;
        tracing::info!(listeners = state.open.len(), "the agent holds the pods' listeners");
        state.holder = Some(holder);
        Ok(())
    }
}

impl State {
    /// What the holder does not hear now it hears when it is connected again.
    fn tell(&mut self, what: Say, socket: Option<&TcpListener>) {
        if let Some(holder) = &self.holder
            && send(holder, what, socket).is_err()
        {
            self.holder = None;
        }
    }
}

fn named((netns, port): Key) -> Listener {
    Listener { device: netns.device, inode: netns.inode, port: port.into() }
}

fn send(stream: &UnixStream, message: Say, socket: Option<&TcpListener>) -> Result<(), Broken> {
    Ok(descriptors::send_frame(stream, &frame(&ToHolder { message: Some(message) })?, socket.map(AsFd::as_fd))?)
}

fn receive(stream: &UnixStream) -> Result<(Option<Heard>, Option<OwnedFd>), Broken> {
    let (body, descriptor) = descriptors::receive_frame(stream, length)?;
    Ok((parse::<FromHolder>(&body)?.message, descriptor))
}
