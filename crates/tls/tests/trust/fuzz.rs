//! Fuzz targets of what outsiders can send: certificates, SPIFFE IDs, requests, stored files. As tests they run a bounded number of inputs;
//! `cargo bolero test` runs them without end.

use crate::forge::{Forge, Recipe, id};
use bolero::TypeGenerator;
use mesh_core::identity::Identity;
use mesh_tls::{Authority, KeyRequest, SvidStore, leaf, verify};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Damage to good bytes: reaches deeper than noise.
#[derive(Clone, Debug, TypeGenerator)]
enum Damage {
    Flip(u16, u8),
    Cut(u16),
    Insert(u16, Vec<u8>),
    Noise(Vec<u8>),
}

impl Damage {
    fn to(&self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        let at = |at: u16| at as usize % good.len();
        match self {
            Self::Flip(place, with) => bytes[at(*place)] ^= with,
            Self::Cut(place) => bytes.truncate(at(*place)),
            Self::Insert(place, more) => drop(bytes.splice(at(*place)..at(*place), more.iter().copied())),
            Self::Noise(noise) => bytes.clone_from(noise),
        }
        bytes
    }
}

#[test]
fn no_damaged_certificate_is_ever_believed() {
    let forge = Forge::new();
    let good = forge.leaf(&Recipe::default()).chain[0].to_vec();
    let rules = verify::Rules::new(&forge.roots(), id(CART).trust_domain).unwrap();
    bolero::check!().with_type::<Damage>().for_each(|damage| {
        let bytes = damage.to(&good);
        let _ = leaf::read(&bytes);
        let checked =
            rules.check(&CertificateDer::from(&bytes[..]), &[], UnixTime::now(), verify::Side::Client, Some(&id(CART)));
        assert!(checked.is_err() || bytes == good, "believed {bytes:?}");
    });
}

#[test]
fn a_spiffe_id_is_read_exactly_or_not_at_all() {
    bolero::check!().with_type::<(bool, Damage)>().for_each(|(whole, damage)| {
        let text = match whole {
            true => String::from_utf8_lossy(&damage.to(CART.as_bytes())).into_owned(),
            false => format!("spiffe://cluster.local/ns/{}", String::from_utf8_lossy(&damage.to(b"shop/sa/cart"))),
        };
        if let Ok(identity) = leaf::identity_of_uri(&text) {
            assert_eq!(identity.to_string(), text);
        }
        assert_eq!(
            text.parse::<Identity>().is_ok(),
            leaf::identity_of_uri(&text).is_ok(),
            "two readers, one answer: {text:?}"
        );
    });
}

#[test]
fn no_request_gets_another_identity_than_the_one_that_was_granted() {
    let dir = tempfile::tempdir().unwrap();
    // A panic ends the test, so nobody sees what it leaves behind.
    let authority = std::panic::AssertUnwindSafe(Authority::load_or_create(dir.path()).unwrap());
    let good = KeyRequest::new(&id("spiffe://cluster.local/ns/shop/sa/other")).unwrap().csr().to_vec();
    bolero::check!().with_type::<Damage>().for_each(|damage| {
        if let Ok(signed) = authority.sign(&damage.to(&good), &id(CART), Duration::from_secs(60)) {
            assert_eq!(leaf::read(&signed.chain[0]).map(|l| l.identity), Ok(id(CART)));
        }
    });
}

#[test]
fn a_damaged_stored_svid_is_refused_or_the_same_identity() {
    let dir = tempfile::tempdir().unwrap();
    let store = SvidStore::open(dir.path()).unwrap();
    store.save(&Forge::new().svid(CART)).unwrap();
    let file = dir.path().join("cluster.local/shop/cart/svid.pem");
    let good = std::fs::read(&file).unwrap();
    bolero::check!().with_type::<Damage>().for_each(|damage| {
        std::fs::write(&file, damage.to(&good)).unwrap();
        if let Ok(Some(svid)) = store.load(&id(CART)) {
            assert_eq!(*svid.identity(), id(CART));
        }
    });
}
