//! What the node proxy and the node agent's holder of listeners say to each other (`proto/heddle/holder.proto`); framed as in `cni`. It must not
//! pass descriptors; `mesh_sys` does.

pub use generated::*;

mod generated {
    #![expect(missing_docs, reason = "generated; the proto file is the documentation")]
    include!(concat!(env!("OUT_DIR"), "/heddle.holder.v1.rs"));
}

/// Version of this protocol (`Hello.protocol`).
pub const PROTOCOL: u32 = 1;
