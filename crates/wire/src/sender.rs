//! What the sender of the config stream holds: resources encoded once for all sessions. It must not differ from `proto` by a byte on the wire.

use crate::{encode, proto};
use bytes::Bytes;
use mesh_core::node::Resource;
use prost::Message;

/// The Config service whose responses are [`Outgoing`].
#[cfg(feature = "grpc")]
pub mod service {
    #![expect(clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/heddle.config.v1.Config.rs"));
}

#[cfg(feature = "grpc")]
pub mod codec;

/// Bytes of resources after which a delta ends: small enough that a slow link acknowledges often, and that hundreds of proxies do not fill the
/// sender's memory with what is on its way to them, or was; far below [`crate::MESSAGE_MAX`].
pub const DELTA_BYTES: usize = 16 * 1024;

/// A resource ready to be sent. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Hash of the content.
    pub version: u64,
    /// `proto::Resource`, encoded.
    pub bytes: Bytes,
}

impl Encoded {
    /// Encodes a resource.
    pub fn new(resource: &Resource) -> Self {
        let message = encode(resource);
        Self { version: message.version, bytes: message.encode_to_vec().into() }
    }
}

/// `proto::ToProxy`, with encoded resources.
#[derive(Clone, PartialEq, Message)]
pub struct Outgoing {
    /// The delta (the only message so far).
    #[prost(message, optional, tag = "1")]
    pub delta: Option<OutgoingDelta>,
}

/// `proto::Delta`, with encoded resources.
#[derive(Clone, PartialEq, Message)]
pub struct OutgoingDelta {
    /// See `proto::Delta`.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
    /// See [`Encoded::bytes`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub upserts: Vec<Bytes>,
    /// See `proto::Delta`.
    #[prost(string, repeated, tag = "3")]
    pub removes: Vec<String>,
    /// See `proto::Delta`.
    #[prost(bool, tag = "4")]
    pub synced: bool,
}

/// Reads what a receiver would read: for tests and for `/debug/config`.
impl TryFrom<&OutgoingDelta> for proto::Delta {
    type Error = prost::DecodeError;
    fn try_from(delta: &OutgoingDelta) -> Result<Self, prost::DecodeError> {
        Self::decode(delta.encode_to_vec().as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::{mesh::Service, name::NsName};
    use std::sync::Arc;

    #[test]
    fn an_outgoing_delta_is_byte_for_byte_the_delta_of_the_proto_file() {
        let resource = Resource::Service(Arc::new(Service {
            id: NsName::new("shop", "cart"),
            addresses: vec![[10, 0, 0, 1].into()],
            ports: vec![],
        }));
        let encoded = Encoded::new(&resource);
        let outgoing = Outgoing {
            delta: Some(OutgoingDelta {
                nonce: 7,
                upserts: vec![encoded.bytes.clone()],
                removes: vec!["Pod/shop/old".into()],
                synced: true,
            }),
        };
        let delta = proto::Delta {
            nonce: 7,
            upserts: vec![encode(&resource)],
            removes: vec!["Pod/shop/old".into()],
            synced: true,
        };
        let plain = proto::ToProxy { message: Some(proto::to_proxy::Message::Delta(delta)) };
        assert_eq!(outgoing.encode_to_vec(), plain.encode_to_vec());
    }
}
