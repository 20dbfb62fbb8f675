//! The conversation with the node proxy: one request with the pod's facts, one answer. It must not interpret what the proxy decided.

use crate::{
    call::Sandbox,
    conf::Conf,
    fault::{CniFault, Code},
};
use mesh_sys::{Netns, descriptors};
use mesh_wire::cni::{
    Add, Check, Del, Gc, PROTOCOL, Request, Response, Status, frame, read, request::Command, response::Result as Answer,
};
use std::{
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
};

/// Hands a sandbox over; returns when the proxy has captured it or knows that it is not meshed.
pub fn add(conf: &Conf, sandbox: &Sandbox, addresses: Vec<String>) -> Result<(), CniFault> {
    let netns = Netns::open(&sandbox.netns)
        .map_err(|e| CniFault::because(Code::Environment, "CNI_NETNS cannot be used", &e))?;
    let add = Add {
        container_id: sandbox.container.clone(),
        pod_namespace: sandbox.namespace.clone(),
        pod_name: sandbox.name.clone(),
        pod_uid: sandbox.uid.clone(),
        netns: sandbox.netns.to_string_lossy().into_owned(),
        addresses,
    };
    ask(conf, Command::Add(add), Some(&netns))
}

/// Says that a sandbox goes away. A proxy that is not there does not hold up the end of a pod: it finds out by itself when it starts.
pub fn del(conf: &Conf, container: &str, netns: Option<&Path>) -> Result<(), CniFault> {
    let netns = netns.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match ask(conf, Command::Del(Del { container_id: container.into(), netns }), None) {
        Err(fault) if fault.code == Code::TryAgain => {
            eprintln!("mesh-cni DEL {container}: {fault} {}", fault.details);
            Ok(())
        }
        other => other,
    }
}

/// Asks whether a sandbox is as ADD left it.
pub fn check(conf: &Conf, container: &str) -> Result<(), CniFault> {
    ask(conf, Command::Check(Check { container_id: container.into() }), None)
}

/// Asks whether ADD would be served.
pub fn status(conf: &Conf) -> Result<(), CniFault> {
    // CNI: STATUS has codes of its own for "cannot service ADD requests".
    ask(conf, Command::Status(Status {}), None).map_err(|fault| CniFault { code: Code::Unavailable, ..fault })
}

/// Names the sandboxes that still exist.
pub fn gc(conf: &Conf) -> Result<(), CniFault> {
    ask(conf, Command::Gc(Gc { container_ids: conf.valid.clone() }), None)
}

fn ask(conf: &Conf, command: Command, netns: Option<&Netns>) -> Result<(), CniFault> {
    let socket = conf.socket.display();
    let gone = |e: &dyn std::error::Error| {
        CniFault::because(Code::TryAgain, format!("the node proxy does not answer on {socket}"), e)
    };
    let mut stream = descriptors::dial(&conf.socket, conf.timeout).map_err(|e| gone(&e))?;
    let request = Request { protocol: PROTOCOL, command: Some(command) };
    let bytes = frame(&request).map_err(|e| CniFault::because(Code::Config, "the request is too long", &e))?;
    send(&mut stream, &bytes, netns).map_err(|e| gone(&e))?;
    let answer: Response = read(&mut stream).map_err(|e| gone(&e))?;
    match answer.result {
        Some(Answer::Ok(_)) => Ok(()),
        Some(Answer::Error(error)) if error.retry => Err(CniFault::new(Code::TryAgain, error.message)),
        Some(Answer::Error(error)) => Err(CniFault::new(Code::Refused, error.message)),
        None => Err(CniFault::new(
            Code::Refused,
            "the node proxy answered nothing that this plugin knows; are their versions the same?",
        )),
    }
}

/// The namespace goes with the first byte.
fn send(stream: &mut UnixStream, bytes: &[u8], netns: Option<&Netns>) -> io::Result<()> {
    let sent = match netns {
        Some(netns) => descriptors::send(stream, bytes, netns.as_fd())?,
        None => 0,
    };
    stream.write_all(&bytes[sent..])
}
