//! The wire as a whole: what goes out comes back the same, what is broken is named, and nothing panics.

mod any;
mod broken;

use crate::{decode, decode_delta, encode, proto};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #[test]
    fn every_resource_survives_the_wire(resource in any::resource()) {
        let message = encode(&resource);
        let bytes = message.encode_to_vec();
        let received = proto::Resource::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(received.version, message.version);
        prop_assert_eq!(decode(received).map_err(|e| e.to_string()), Ok(resource.clone()));
        prop_assert_eq!(encode(&resource).version, message.version, "the same content has the same version");
    }

    #[test]
    fn other_content_has_another_version(a in any::resource(), b in any::resource()) {
        prop_assert_eq!(a == b, encode(&a).version == encode(&b).version);
    }

    #[test]
    fn a_torn_resource_is_refused_or_whole(resource in any::resource(), cut in any::<prop::sample::Index>(), flip: u8) {
        let mut bytes = encode(&resource).encode_to_vec();
        let at = cut.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(message) = proto::Resource::decode(bytes.as_slice()) {
            // Whatever it says now: what is taken is what would be sent for it.
            if let Ok(taken) = decode(message) {
                let id = taken.id();
                prop_assert_eq!(decode(encode(&taken)).map(|r| r.id()), Ok(id));
            }
        }
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(resource) = proto::Resource::decode(bytes) {
            let _ = decode(resource);
        }
        if let Ok(delta) = proto::Delta::decode(bytes) {
            let _ = decode_delta(delta);
        }
        let _ = proto::ToController::decode(bytes);
        let _ = crate::parse_resource_id(&String::from_utf8_lossy(bytes));
    });
}
