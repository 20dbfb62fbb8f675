//! Gateway: binds what the listeners of a Gateway ask for, and follows their changes without dropping a connection. It must not decide routes.

pub mod listeners;
mod port;
mod tls;

use crate::{listen, local::Local, shared::Shared};
use mesh_core::{
    mesh::Gateway,
    name::{GatewayId, Text},
};
use mesh_sys::socket;
use port::Port;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Pause before an address that could not be bound is tried again: it may still be on its way to this machine.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Serves the listeners of one Gateway, as the newest config has them, until `shared.drain`; then waits for the living connections,
/// which get `limits.drain`. `local`: the gateway proxy itself. Cancelling it closes the listeners and leaves the connections.
pub async fn run(id: GatewayId, local: Arc<Local>, shared: Arc<Shared>) {
    let mut snapshots = shared.snapshot.clone();
    let connections = TaskTracker::new();
    let mut bound: BTreeMap<SocketAddr, Bound> = BTreeMap::new();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let gateway = snapshot.as_ref().and_then(|s| s.gateway(&id).cloned());
        let wanted = gateway.as_deref().map(addresses).unwrap_or_default();
        bound.retain(|address, _| {
            let keep = wanted.contains_key(address);
            if !keep {
                tracing::info!(gateway = %id, %address, "listener closed; its connections drain");
            }
            keep
        });
        let mut missing = false;
        for (address, name) in wanted {
            let entry = match bound.get(&address) {
                Some(entry) => entry,
                None => match bind(&local, address) {
                    Ok(listener) => {
                        tracing::info!(gateway = %id, %address, listener = %name, "listening");
                        let opened = Bound::open(listener, &id, address.port(), &local, &shared, &connections);
                        bound.entry(address).or_insert(opened)
                    }
                    Err(error) => {
                        tracing::warn!(gateway = %id, %address, listener = %name, %error, "cannot listen; trying again");
                        missing = true;
                        continue;
                    }
                },
            };
            if let (Some(snapshot), Some(gateway)) = (&snapshot, &gateway) {
                entry.port.follow(snapshot, gateway);
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { break },
            () = sleep(BIND_AGAIN), if missing => {}
            () = shared.drain.cancelled() => break,
        }
    }
    drop(bound);
    connections.close();
    connections.wait().await;
}

/// An open listening socket. Dropping it closes the socket and drains its connections.
struct Bound {
    port: Arc<Port>,
    stop: CancellationToken,
}

impl Bound {
    fn open(
        listener: TcpListener,
        id: &GatewayId,
        number: u16,
        local: &Arc<Local>,
        shared: &Arc<Shared>,
        connections: &TaskTracker,
    ) -> Self {
        let stop = shared.drain.child_token();
        let port = Arc::new(Port::new(id.clone(), number, local.clone(), shared.clone(), stop.clone()));
        let (serving, tracker, refusing) = (port.clone(), connections.clone(), port.clone());
        let accepting = listen::accept(
            listener,
            local.clone(),
            stop.clone(),
            move |peer, fault| refusing.full(peer, fault),
            move |stream, peer, permit| tracker.track_future(serving.clone().serve(stream, peer, permit)),
        );
        connections.spawn(accepting);
        Self { port, stop }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Addresses to bind, each with the name of a listener on it for the log.
fn addresses(gateway: &Gateway) -> BTreeMap<SocketAddr, Text> {
    let anywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = if gateway.addresses.is_empty() { &anywhere[..] } else { &gateway.addresses };
    let mut wanted = BTreeMap::new();
    for listener in &gateway.listeners {
        for address in addresses {
            wanted.entry(SocketAddr::new(*address, listener.port)).or_insert_with(|| listener.name.clone());
        }
    }
    wanted
}

fn bind(local: &Local, address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip().is_unspecified() {
        return local.listen(address.port());
    }
    TcpListener::from_std(socket::listening(address, None)?)
}
