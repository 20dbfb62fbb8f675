//! Gateway: all that a snapshot knows of one Gateway: its listeners' routes, and one table for each port. It must not match requests.

use crate::{
    mesh::{Gateway, HostPattern, Listener, ListenerProtocol},
    name::Text,
    route::{Bucket, HostIndex, Hosts, RouteTable, RuleIndex, StreamIndex, StreamTable},
};
use std::{collections::BTreeMap, sync::Arc};

/// A Gateway, or routes for one that is not known (yet).
#[derive(Clone, Default)]
pub(super) struct GatewayEntry {
    pub(super) gateway: Option<Arc<Gateway>>,
    /// Listener name → its routes.
    http: BTreeMap<Text, Hosts<RuleIndex>>,
    streams: BTreeMap<Text, Hosts<StreamIndex>>,
    http_ports: BTreeMap<u16, Arc<RouteTable>>,
    stream_ports: BTreeMap<u16, Arc<StreamTable>>,
}

impl GatewayEntry {
    pub(super) fn http_port(&self, port: u16) -> Option<&Arc<RouteTable>> {
        self.http_ports.get(&port)
    }

    pub(super) fn stream_port(&self, port: u16) -> Option<&Arc<StreamTable>> {
        self.stream_ports.get(&port)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gateway.is_none() && self.http.is_empty() && self.streams.is_empty()
    }

    pub(super) fn change_http(
        &mut self,
        listener: &Text,
        host: Option<&HostPattern>,
        change: impl FnOnce(&[Arc<<RuleIndex as Bucket>::Route>]) -> Option<RuleIndex>,
    ) {
        change_host(&mut self.http, listener, host, change);
    }

    pub(super) fn change_streams(
        &mut self,
        listener: &Text,
        host: Option<&HostPattern>,
        change: impl FnOnce(&[Arc<<StreamIndex as Bucket>::Route>]) -> Option<StreamIndex>,
    ) {
        change_host(&mut self.streams, listener, host, change);
    }

    /// Puts the listeners of each port together again. A listener without routes has an empty table: 404, not "no such listener".
    pub(super) fn assemble(&mut self) {
        let mut http = BTreeMap::<u16, HostIndex<Hosts<RuleIndex>>>::new();
        let mut streams = BTreeMap::<u16, HostIndex<Hosts<StreamIndex>>>::new();
        for l in self.gateway.iter().flat_map(|g| &g.listeners) {
            match l.protocol {
                ListenerProtocol::Http | ListenerProtocol::Https(_) => put(&mut http, l, &self.http),
                ListenerProtocol::TlsPassthrough | ListenerProtocol::TlsTerminate(_) | ListenerProtocol::Tcp => {
                    put(&mut streams, l, &self.streams);
                }
            }
        }
        let table = |(port, listeners)| (port, Arc::new(RouteTable::of_listeners(listeners)));
        self.http_ports = http.into_iter().map(table).collect();
        let table = |(port, listeners)| (port, Arc::new(StreamTable::of_listeners(listeners)));
        self.stream_ports = streams.into_iter().map(table).collect();
    }
}

fn put<I>(ports: &mut BTreeMap<u16, HostIndex<Hosts<I>>>, listener: &Listener, routes: &BTreeMap<Text, Hosts<I>>) {
    let hosts = routes.get(&listener.name).cloned().unwrap_or_default();
    ports.entry(listener.port).or_default().set(listener.hostname.as_ref(), Some(hosts));
}

fn change_host<I: Bucket>(
    listeners: &mut BTreeMap<Text, Hosts<I>>,
    listener: &Text,
    host: Option<&HostPattern>,
    change: impl FnOnce(&[Arc<I::Route>]) -> Option<I>,
) {
    let hosts = listeners.entry(listener.clone()).or_default();
    let changed = change(hosts.at(host).map_or(&[], |index| index.routes()));
    hosts.set(host, changed.map(Arc::new));
    if hosts.is_empty() {
        listeners.remove(listener);
    }
}
