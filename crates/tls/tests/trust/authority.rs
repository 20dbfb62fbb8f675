//! The embedded authority: what it signs, what it refuses, what it keeps.

use crate::forge::id;
use mesh_tls::{Authority, KeyRequest, Svid, leaf, verify, x509::AuthorityFault};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::pki_types::UnixTime;
use std::time::{Duration, SystemTime};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn the_root_survives_a_restart_and_old_svids_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let before = Authority::load_or_create(dir.path()).unwrap();
    let request = KeyRequest::new(&id(CART)).unwrap();
    let signed = before.sign(request.csr(), &id(CART), Duration::from_secs(3600)).unwrap();
    let after = Authority::load_or_create(dir.path()).unwrap();
    assert_eq!(before.roots(), after.roots());
    Svid::new(id(CART), signed.chain, request.into_key(), after.roots()).unwrap();
    let again = KeyRequest::new(&id(CART)).unwrap();
    let signed = after.sign(again.csr(), &id(CART), Duration::from_secs(3600)).unwrap();
    Svid::new(id(CART), signed.chain, again.into_key(), before.roots()).unwrap();
}

#[test]
fn the_requests_own_wishes_mean_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path()).unwrap();
    let request = KeyRequest::new(&id("spiffe://cluster.local/ns/kube-system/sa/admin")).unwrap();
    let signed = authority.sign(request.csr(), &id(CART), Duration::from_secs(60)).unwrap();
    assert_eq!(leaf::read(&signed.chain[0]).unwrap().identity, id(CART));
}

#[test]
fn lifetimes_are_held_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path()).unwrap();
    let request = KeyRequest::new(&id(CART)).unwrap();
    for (asked, longest) in [(0, 3), (5, 6), (3600, 3601), (u64::MAX, 7 * 24 * 3600 + 1)] {
        let signed = authority.sign(request.csr(), &id(CART), Duration::from_secs(asked)).unwrap();
        let left = signed.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(longest) && left > Duration::from_millis(1500), "{asked}: {left:?}");
    }
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path()).unwrap();
    let csr_with = |alg| {
        let key = KeyPair::generate_for(alg).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    };
    let good = KeyRequest::new(&id(CART)).unwrap().csr().to_vec();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut other_key = good.clone();
    // Somewhere in the public key: the signature does not fit any more, so possession is not proven.
    let at = other_key.len() / 2;
    other_key[at] ^= 1;
    for (csr, says) in [
        (vec![], "parse"),
        (vec![0x30; 100], "parse"),
        (good[..good.len() - 1].to_vec(), "parse"),
        (vec![0x30; 9000], "9000 bytes"),
        (forged, "ignature"),
        (csr_with(&PKCS_ECDSA_P384_SHA384), "not ECDSA P-256"),
        (csr_with(&PKCS_ED25519), "not ECDSA P-256"),
    ] {
        let fault = authority.sign(&csr, &id(CART), Duration::from_secs(60)).unwrap_err().to_string();
        assert!(fault.contains(says) && fault.contains(CART), "{fault}");
    }
    assert!(authority.sign(&other_key, &id(CART), Duration::from_secs(60)).is_err());
}

#[test]
fn a_damaged_or_halved_root_is_an_error_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    Authority::load_or_create(dir.path()).unwrap();
    let (crt, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
    let (good_crt, good_key) = (std::fs::read(&crt).unwrap(), std::fs::read(&key).unwrap());
    let says = |what: &str| match Authority::load_or_create(dir.path()).err() {
        Some(fault @ AuthorityFault::Root { .. }) => assert!(fault.to_string().contains(what), "{fault}"),
        other => panic!("{what}: {other:?}"),
    };
    for damaged in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&crt, damaged).unwrap();
        says("ca.crt");
    }
    std::fs::write(&crt, &good_crt).unwrap();
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    says("none of its 1 certificates is of the key");
    std::fs::remove_file(&key).unwrap();
    says("missing");
    std::fs::write(&key, &good_key).unwrap();
    Authority::load_or_create(dir.path()).unwrap();
}

#[test]
fn a_root_is_replaced_step_by_step_without_a_moment_of_distrust() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::load_or_create(new.path()).unwrap();
    Authority::load_or_create(dir.path()).unwrap();
    let read = |dir: &tempfile::TempDir, file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    let (old_crt, new_crt, new_key) = (read(&dir, "ca.crt"), read(&new, "ca.crt"), read(&new, "ca.key"));
    let issue = || {
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let request = KeyRequest::new(&id(CART)).unwrap();
        let signed = authority.sign(request.csr(), &id(CART), Duration::from_secs(60)).unwrap();
        Svid::new(id(CART), signed.chain, request.into_key(), authority.roots()).unwrap()
    };
    let trusts = |a: &Svid, b: &Svid| {
        let rules = verify::Rules::new(a.roots(), id(CART).trust_domain).unwrap();
        rules.check(&b.chain()[0], &[], UnixTime::now(), verify::Side::Client, None).is_ok()
    };
    let before = issue();
    std::fs::write(dir.path().join("ca.crt"), format!("{old_crt}{new_crt}")).unwrap();
    let announced = issue();
    std::fs::write(dir.path().join("ca.key"), new_key).unwrap();
    let switched = issue();
    std::fs::write(dir.path().join("ca.crt"), new_crt).unwrap();
    let retired = issue();
    // Those of one step and the next live at the same time.
    for (a, b) in [(&before, &announced), (&announced, &switched), (&switched, &retired)] {
        assert!(trusts(a, b) && trusts(b, a));
    }
    assert!(!trusts(&before, &retired) && !trusts(&retired, &before), "two steps apart there is nothing in common");
}
