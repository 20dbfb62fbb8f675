//! SPEAK: protobuf of the config stream and of the CNI hand-over, and the only place where what a peer said is doubted. It must not open sockets.

pub mod cni;
mod decode;
mod encode;
pub mod holder;
mod id;
pub mod sender;
mod version;

pub use decode::{LIST_MAX, Rejected, TEXT_MAX, decode, decode_delta};
pub use encode::encode;
pub use id::{BadResourceId, parse_resource_id};

/// Version of the config protocol that this crate speaks (`Hello.protocol`).
pub const PROTOCOL: u32 = 1;

/// Largest message of the config stream that a peer takes. Kubernetes objects end at 1.5 MiB (etcd) and one resource is one object;
/// the sender splits deltas far below this.
pub const MESSAGE_MAX: usize = 8 * 1024 * 1024;

/// Messages of `proto/heddle/config.proto`, and with feature `grpc` its clients and servers.
pub mod proto {
    #![expect(missing_docs, reason = "generated; the proto file is the documentation")]
    #![cfg_attr(feature = "grpc", expect(clippy::allow_attributes_without_reason, reason = "generated"))]
    include!(concat!(env!("OUT_DIR"), "/heddle.config.v1.rs"));

    /// Shows no key.
    impl std::fmt::Debug for Certificate {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Certificate")
                .field("id", &self.id)
                .field("chain", &self.chain.len())
                .finish_non_exhaustive()
        }
    }
}

#[cfg(test)]
mod tests;
