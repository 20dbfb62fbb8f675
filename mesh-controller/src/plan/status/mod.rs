//! Status: what to say of an object of ours, as values. It must not write, and it must not know times; the writer does.

pub mod features;
mod json;
pub mod reason;

use crate::{
    api::ParentRef,
    inventory::{Key, Kind},
};
use mesh_core::name::{NsName, Text};
use std::net::IpAddr;

/// The status of one object. Every condition bears `generation` as its observedGeneration.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The object.
    pub key: Key,
    /// The generation that was planned.
    pub generation: i64,
    /// What the kind asks for.
    pub body: Body,
}

/// `.status` by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Of a route: one entry for each parentRef of ours.
    Route(Vec<RouteParent>),
    /// Of a policy: one entry for each ancestor of ours.
    Policy(Vec<Ancestor>),
    /// Of a Gateway.
    Gateway {
        /// Addresses that are assigned.
        addresses: Vec<IpAddr>,
        /// Of the Gateway.
        conditions: Vec<Condition>,
        /// In the order of the spec.
        listeners: Vec<ListenerStatus>,
    },
    /// Of a GatewayClass.
    Class {
        /// Of the class.
        conditions: Vec<Condition>,
        /// Sorted.
        features: &'static [&'static str],
    },
    /// Of an XMesh.
    Mesh {
        /// Of the mesh.
        conditions: Vec<Condition>,
        /// Sorted.
        features: &'static [&'static str],
    },
}

/// `status.parents[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteParent {
    /// The parentRef as the spec has it.
    pub parent: ParentRef,
    /// About the route at this parent.
    pub conditions: Vec<Condition>,
}

/// `status.ancestors[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ancestor {
    /// Kind of the ancestor.
    pub kind: Kind,
    /// Its name; namespace empty if it is cluster-scoped.
    pub name: NsName,
    /// About the policy at this ancestor.
    pub conditions: Vec<Condition>,
}

/// `status.listeners[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: Text,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<Kind>,
    /// How many routes are attached, also when the listener is not valid.
    pub attached_routes: u32,
    /// About the listener.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// `type`.
    pub kind: &'static str,
    /// `status`.
    pub state: State,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
}

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl State {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Condition {
    /// A condition that holds.
    pub fn yes(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, state: State::True, reason, message }
    }

    /// A condition that does not hold.
    pub fn no(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, state: State::False, reason, message }
    }

    /// A condition that is not decided.
    pub fn unknown(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, state: State::Unknown, reason, message }
    }
}
