//! Sessions as a state machine: what is sent, merged, sent again, and never sent again.

use super::*;
use crate::publish::mesh::Mesh;
use crate::publish::slice::tests::service;
use mesh_core::node::NodeDelta;

/// A mesh of one Service for each (name, address).
fn entries(services: &[(&str, u8)]) -> Vec<Arc<Entry>> {
    let mut mesh = Mesh::default();
    let upserts = services.iter().map(|(name, address)| service("shop", name, *address)).collect();
    mesh.apply(&NodeDelta { upserts, removes: vec![] });
    mesh.entries().cloned().collect()
}

fn touched(services: &[(&str, u8)]) -> Touched {
    entries(services).into_iter().map(|e| (e.id(), Some(e))).collect()
}

fn gone(name: &str) -> Touched {
    [(ResourceId::Service(mesh_core::name::NsName::new("shop", name)), None)].into()
}

fn ok(nonce: u64) -> proto::Ack {
    proto::Ack { nonce, errors: vec![] }
}

fn nack(nonce: u64, resource: &str) -> proto::Ack {
    let error = proto::Rejection { resource: resource.into(), field: "ports".into(), reason: "no".into() };
    proto::Ack { nonce, errors: vec![error] }
}

/// A session with a proxy that holds `known`.
fn start(slice: Vec<Arc<Entry>>, known: &BTreeMap<String, u64>) -> Session {
    Session::resume(slice.into_iter().map(|entry| (entry.id(), entry)), known)
}

/// What the next delta says: `+cart=1` (name and last address byte), `-cart`, `synced`.
fn said(session: &mut Session) -> Option<(u64, Vec<String>)> {
    said_of(session, &Mesh::default())
}

/// The same, with more to read in the mesh.
fn said_of(session: &mut Session, mesh: &Mesh) -> Option<(u64, Vec<String>)> {
    let last = session.reads_after().flatten().cloned();
    let mut rest = mesh.after(last.as_ref()).map(|entry| (entry.id(), entry.clone()));
    let delta = session.next(Instant::now(), &mut rest)?;
    let delta = proto::Delta::try_from(&delta).unwrap();
    let mut words: Vec<String> = delta
        .upserts
        .iter()
        .map(|r| match &r.body {
            Some(proto::resource::Body::Service(s)) => format!("+{}={}", &s.id[5..], s.addresses[0][3]),
            other => panic!("{other:?}"),
        })
        .collect();
    words.extend(delta.removes.iter().map(|id| format!("-{}", &id["Service/shop/".len()..])));
    words.extend(delta.synced.then(|| "synced".to_owned()));
    Some((delta.nonce, words))
}

fn words(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn what_a_proxy_knows_is_not_sent_again_and_what_it_no_longer_needs_is_removed() {
    let slice = entries(&[("a", 1), ("b", 2), ("c", 3)]);
    let known = BTreeMap::from([
        (slice[0].id().to_string(), slice[0].encoded.version),
        (slice[1].id().to_string(), 7),
        ("Service/shop/z".to_owned(), 1),
        ("from the future".to_owned(), 1),
    ]);
    let mut session = start(slice, &known);
    assert_eq!(said(&mut session), Some((1, words(&["+b=2", "+c=3", "-z", "synced"]))));
}

#[test]
fn a_proxy_that_holds_nothing_is_told_of_everything_as_it_is_when_it_is_told() {
    let mut mesh = Mesh::default();
    let set = |mesh: &mut Mesh, session: Option<&mut Session>, name: &str, address: u8| {
        let changes = mesh.apply(&NodeDelta { upserts: vec![service("shop", name, address)], removes: vec![] });
        if let Some(session) = session {
            session.change(&changes.into_iter().map(|change| (change.id, change.new)).collect());
        }
    };
    for name in ["b", "c", "d", "e", "f"] {
        set(&mut mesh, None, name, 1);
    }
    let mut session = Session::fresh();
    session.items = 2;
    assert_eq!(said_of(&mut session, &mesh), Some((1, words(&["+b=1", "+c=1"]))));
    // Before, and after, the place that was reached; and a new one on either side.
    for (name, address) in [("b", 2), ("e", 2), ("a", 1), ("g", 1)] {
        set(&mut mesh, Some(&mut session), name, address);
    }
    mesh.apply(&NodeDelta { upserts: vec![], removes: gone("d").into_keys().collect() });
    session.change(&gone("d"));
    session.answer(&ok(1), Instant::now()).unwrap();
    session.items = 3;
    assert_eq!(session.waiting(), 2, "what will be read does not wait");
    assert_eq!(said_of(&mut session, &mesh), Some((2, words(&["+a=1", "+b=2", "+e=2"]))));
    session.answer(&nack(2, "Service/shop/e"), Instant::now()).unwrap();
    assert_eq!(said_of(&mut session, &mesh), Some((3, words(&["+a=1", "+b=2", "+f=1"]))));
    session.answer(&ok(3), Instant::now()).unwrap();
    assert_eq!(said_of(&mut session, &mesh), Some((4, words(&["+g=1", "synced"]))));
    session.answer(&ok(4), Instant::now()).unwrap();
    assert_eq!((said_of(&mut session, &mesh), session.is_current()), (None, true));
}

#[test]
fn a_proxy_that_knows_everything_hears_only_that_it_is_in_sync() {
    let slice = entries(&[("a", 1)]);
    let known = slice.iter().map(|e| (e.id().to_string(), e.encoded.version)).collect();
    let mut session = start(slice, &known);
    assert_eq!(said(&mut session), Some((1, words(&["synced"]))));
    session.answer(&ok(1), Instant::now()).unwrap();
    assert_eq!(said(&mut session), None);
    assert!(session.is_current());
}

#[test]
fn changes_behind_a_delta_in_flight_are_merged_to_the_newest() {
    let mut session = start(entries(&[("a", 1)]), &BTreeMap::new());
    assert_eq!(said(&mut session), Some((1, words(&["+a=1", "synced"]))));
    for address in 2..100 {
        session.change(&touched(&[("a", address), ("b", address)]));
        assert_eq!(said(&mut session), None, "one is in flight");
        assert_eq!(session.waiting(), 2, "bounded by what there is");
    }
    session.change(&gone("b"));
    session.answer(&ok(1), Instant::now()).unwrap();
    assert_eq!(said(&mut session), Some((2, words(&["+a=99", "-b"]))));
}

#[test]
fn a_refused_version_is_not_sent_again_and_the_others_of_its_delta_are() {
    let mut session = start(entries(&[("a", 1), ("b", 2)]), &BTreeMap::new());
    said(&mut session).unwrap();
    let answered = session.answer(&nack(1, "Service/shop/a"), Instant::now()).unwrap();
    assert_eq!(answered.refused.len(), 1);
    assert_eq!((answered.refused[0].0.to_string(), &*answered.refused[0].1.field), ("Service/shop/a".into(), "ports"));
    assert_eq!(said(&mut session), Some((2, words(&["+b=2", "synced"]))));
    session.answer(&ok(2), Instant::now()).unwrap();
    session.change(&touched(&[("a", 1)]));
    assert_eq!(said(&mut session), None, "the same content again");
    assert_eq!(session.refusals().len(), 1);
    session.change(&touched(&[("a", 3)]));
    assert_eq!(said(&mut session), Some((3, words(&["+a=3"]))), "new content is tried");
    assert!(session.refusals().is_empty());
}

#[test]
fn a_newer_change_wins_over_one_that_comes_back_from_a_refused_delta() {
    let mut session = start(entries(&[("a", 1), ("b", 2)]), &BTreeMap::new());
    said(&mut session).unwrap();
    session.change(&touched(&[("b", 9)]));
    session.answer(&nack(1, "Service/shop/a"), Instant::now()).unwrap();
    assert_eq!(said(&mut session), Some((2, words(&["+b=9", "synced"]))));
}

#[test]
fn a_refusal_that_names_nothing_is_narrowed_down_to_one_resource() {
    let all: Vec<(String, u8)> = (0..9).map(|i| (format!("s{i}"), i)).collect();
    let all: Vec<(&str, u8)> = all.iter().map(|(name, a)| (&**name, *a)).collect();
    let mut session = start(entries(&all), &BTreeMap::new());
    let mut held = Vec::new();
    let mut rounds = 0;
    while let Some((nonce, words)) = said(&mut session) {
        rounds += 1;
        assert!(rounds < 60, "never ends");
        // A proxy that chokes on s5 without saying so.
        if words.contains(&"+s5=5".to_owned()) {
            session.answer(&nack(nonce, ""), Instant::now()).unwrap();
        } else {
            held.extend(words.into_iter().filter(|w| w.starts_with('+')));
            session.answer(&ok(nonce), Instant::now()).unwrap();
        }
    }
    held.sort();
    assert_eq!(held, ["+s0=0", "+s1=1", "+s2=2", "+s3=3", "+s4=4", "+s6=6", "+s7=7", "+s8=8"]);
    assert!(session.is_current());
}

#[test]
fn a_proxy_that_refuses_a_remove_is_not_asked_for_ever() {
    let mut session = start(vec![], &BTreeMap::from([("Service/shop/z".to_owned(), 1)]));
    assert_eq!(said(&mut session), Some((1, words(&["-z", "synced"]))));
    session.answer(&nack(1, "Service/shop/z"), Instant::now()).unwrap();
    assert_eq!(said(&mut session), None);
}

#[test]
fn an_answer_to_nothing_is_refused() {
    let mut session = start(vec![], &BTreeMap::new());
    assert!(session.answer(&ok(1), Instant::now()).is_err());
    said(&mut session).unwrap();
    assert!(session.answer(&ok(2), Instant::now()).is_err());
    assert!(session.answer(&ok(1), Instant::now()).is_ok(), "the one in flight still counts");
    assert!(session.answer(&ok(1), Instant::now()).is_err());
}

#[test]
fn a_first_sync_of_many_bytes_comes_in_pieces_and_the_last_says_so() {
    let names: Vec<String> = (0..DELTA_ITEMS + 10).map(|i| format!("s{i:05}")).collect();
    let all: Vec<(&str, u8)> = names.iter().map(|n| (&**n, 1)).collect();
    let mut session = start(entries(&all), &BTreeMap::new());
    let mut pieces = Vec::new();
    while let Some((nonce, piece)) = said(&mut session) {
        session.answer(&ok(nonce), Instant::now()).unwrap();
        pieces.push(piece);
    }
    assert!(pieces.len() > 1, "more than a delta holds");
    assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), DELTA_ITEMS + 11, "each once");
    let says_so = |piece: &&Vec<String>| piece.contains(&"synced".to_owned());
    assert_eq!(pieces.iter().filter(says_so).count(), 1);
    assert_eq!(pieces.last().unwrap().last().map(String::as_str), Some("synced"));
}

/// What may happen to a session.
#[derive(Clone, Debug)]
enum Event {
    Change(&'static str, u8),
    Remove(&'static str),
    /// The proxy answers what is in flight; says or does not say what it refuses.
    Answer {
        named: bool,
    },
}

/// A proxy refuses every Service at this address, whatever it is called.
const POISON: u8 = 3;

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    use proptest::prelude::*;
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let event = prop_oneof![
        3 => (name(), 0u8..5).prop_map(|(name, address)| Event::Change(name, address)),
        1 => name().prop_map(Event::Remove),
        3 => any::<bool>().prop_map(|named| Event::Answer { named }),
    ];
    prop::collection::vec(event, 0..60)
}

/// A proxy that applies a delta whole or not at all.
#[derive(Default)]
struct Proxy {
    held: BTreeMap<String, u8>,
    unanswered: Option<proto::Delta>,
}

impl Proxy {
    fn hear(&mut self, session: &mut Session) {
        if self.unanswered.is_none() {
            self.unanswered =
                session.next(Instant::now(), &mut std::iter::empty()).map(|d| proto::Delta::try_from(&d).unwrap());
        }
    }

    fn answer(&mut self, session: &mut Session, named: bool) {
        let Some(delta) = self.unanswered.take() else { return };
        let address = |r: &proto::Resource| match &r.body {
            Some(proto::resource::Body::Service(s)) => s.addresses[0][3],
            other => panic!("{other:?}"),
        };
        let mut ack = ok(delta.nonce);
        for bad in delta.upserts.iter().filter(|r| address(r) == POISON) {
            ack.errors.extend(nack(delta.nonce, if named { &bad.id } else { "" }).errors);
        }
        if ack.errors.is_empty() {
            self.held.extend(delta.upserts.iter().map(|r| (r.id.clone(), address(r))));
            delta.removes.iter().for_each(|id| {
                self.held.remove(id);
            });
        }
        session.answer(&ack, Instant::now()).unwrap();
    }
}

proptest::proptest! {
    #[test]
    fn a_proxy_ends_with_the_newest_state_of_all_that_it_does_not_refuse(events in events(), named: bool) {
        let (mut session, mut proxy) = (start(vec![], &BTreeMap::new()), Proxy::default());
        let mut wanted = BTreeMap::new();
        for event in events {
            match event {
                Event::Change(name, address) => {
                    wanted.insert(format!("Service/shop/{name}"), address);
                    session.change(&touched(&[(name, address)]));
                }
                Event::Remove(name) => {
                    wanted.remove(&format!("Service/shop/{name}"));
                    session.change(&gone(name));
                }
                Event::Answer { named } => proxy.answer(&mut session, named),
            }
            proxy.hear(&mut session);
        }
        proxy.hear(&mut session);
        let mut rounds = 0;
        while proxy.unanswered.is_some() {
            rounds += 1;
            proptest::prop_assert!(rounds < 100, "never ends");
            proxy.answer(&mut session, named);
            proxy.hear(&mut session);
        }
        proptest::prop_assert!(session.is_current());
        for (id, address) in &wanted {
            if *address == POISON {
                proptest::prop_assert!(proxy.held.get(id) != Some(&POISON) && session.refusals().len() <= wanted.len());
            } else {
                proptest::prop_assert_eq!(proxy.held.get(id), Some(address), "{}", id);
            }
        }
        for id in proxy.held.keys() {
            proptest::prop_assert!(wanted.contains_key(id), "{} is gone", id);
        }
    }
}
