//! Versions of resources: a stable hash of the encoded content. It must not depend on anything but those bytes, so that a restarted controller finds the same version.

use crate::proto::resource::Body;
use siphasher::sip::SipHasher13;

/// The version of a resource with this body. SipHash with fixed keys: stable over builds and machines, and 64 bits make
/// an accidental match of two contents of one object as good as impossible.
pub(crate) fn of(body: &Body) -> u64 {
    let mut bytes = Vec::with_capacity(body.encoded_len());
    body.encode(&mut bytes);
    SipHasher13::new().hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn a_version_is_the_same_in_every_build_and_differs_by_content() {
        let service = |id: &str| Body::Service(proto::Service { id: id.into(), ..Default::default() });
        assert_eq!(of(&service("shop/cart")), 17_898_356_795_971_623_753, "stored by proxies: must never change");
        assert_ne!(of(&service("shop/cart")), of(&service("shop/cort")));
        let slice = Body::EndpointSlice(proto::EndpointSlice { id: "shop/cart".into(), ..Default::default() });
        assert_ne!(of(&service("shop/cart")), of(&slice));
    }
}
