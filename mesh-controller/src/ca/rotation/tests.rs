//! Whole rotations of a simulated mesh: replicas that lag, proxies that come, go and stay away, leaders that change at every step, roots that are replaced again in the middle.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LIFETIME: u64 = 40;
/// Proxies of the mesh; all have meshed pods.
const PROXIES: usize = 4;
const REPLICAS: usize = 2;

fn print(of: u8) -> Fingerprint {
    [of; 32]
}

fn signer(of: u8) -> Signer {
    Signer { id: print(of), roots: BTreeSet::from([print(of)]) }
}

/// A certificate as others see it, and the roots that its holder judges others by.
#[derive(Clone, Debug)]
struct Held {
    root: Fingerprint,
    ends: u64,
}

#[derive(Clone, Debug, Default)]
struct Proxy {
    held: Option<Held>,
    roots: (u64, BTreeSet<Fingerprint>),
    replica: Option<usize>,
}

#[derive(Clone, Debug)]
enum Event {
    /// Somebody wants another root.
    Want(u8),
    /// Seconds pass in which a proxy renews, is connected, and hears; for each proxy: to which replica it is connected.
    Pass(u64, [Option<usize>; PROXIES]),
    /// A replica hears of the Secret.
    Hear(usize),
    /// Proxies take what their replica tells them.
    Take([bool; PROXIES]),
    /// Proxies renew.
    Renew([bool; PROXIES]),
    /// Somebody leads and looks.
    Lead,
}

struct World {
    now: u64,
    secret: Seen,
    /// What each replica last heard, and when.
    replicas: [(Seen, u64); REPLICAS],
    reports: BTreeMap<String, Report>,
    proxies: [Proxy; PROXIES],
    steps: Vec<Step>,
}

impl World {
    fn new() -> Self {
        let secret =
            Seen { wanted: Some(signer(1)), active: None, trusted: BTreeSet::new(), ledger: Ledger::default() };
        let replicas = [(secret.clone(), 1000), (secret.clone(), 1000)];
        let mut world =
            Self { now: 1000, secret, replicas, reports: BTreeMap::new(), proxies: Default::default(), steps: vec![] };
        world.lead();
        world.replicas = [(world.secret.clone(), 1000), (world.secret.clone(), 1000)];
        world
    }

    fn lead(&mut self) {
        let expected = (0..PROXIES).map(|p| ProxyName::Node(p.to_string().into())).collect();
        loop {
            let confirmed = missing(self.secret.ledger.revision, &expected, &self.reports).is_empty();
            let around = Around { now: self.now, lifetime: Duration::from_secs(LIFETIME), confirmed };
            let Some((step, ledger)) = self.secret.next(around) else { return };
            let wanted = self.secret.wanted.clone().unwrap();
            match step {
                Step::Adopt => {
                    self.secret.active = Some(wanted.id);
                    self.secret.trusted.extend(wanted.roots);
                }
                Step::Introduce => self.secret.trusted.extend(wanted.roots),
                Step::Switch => self.secret.active = Some(wanted.id),
                Step::Retire => self.secret.trusted = wanted.roots,
                Step::Note => {}
            }
            self.secret.ledger = ledger;
            self.steps.push(step);
        }
    }

    fn hear(&mut self, replica: usize) {
        self.replicas[replica] = (self.secret.clone(), self.now);
    }

    fn take(&mut self, proxy: usize) {
        let p = &mut self.proxies[proxy];
        let Some(replica) = p.replica else { return };
        let view = &self.replicas[replica].0;
        if p.roots.0 < view.ledger.revision {
            p.roots = (view.ledger.revision, view.trusted.clone());
        }
        let (revision, held) = (view.ledger.revision, p.roots.0 >= view.ledger.revision);
        let report = self.reports.entry(replica.to_string()).or_default();
        if report.revision != revision {
            *report = Report { revision, ..Report::default() };
        }
        let name = format!("node/{proxy}");
        if held {
            report.behind.remove(&name);
            report.held.insert(name);
        } else {
            report.behind.insert(name);
        }
    }

    fn renew(&mut self, proxy: usize) {
        let p = &mut self.proxies[proxy];
        let Some(replica) = p.replica else { return };
        let view = &self.replicas[replica].0;
        // With a certificate come the roots of the replica that signed it; older ones than known are not taken.
        if p.roots.0 < view.ledger.revision {
            p.roots = (view.ledger.revision, view.trusted.clone());
        }
        if let Some(root) = view.active.filter(|root| p.roots.1.contains(root)) {
            p.held = Some(Held { root, ends: self.now + LIFETIME });
        }
    }

    fn pass(&mut self, seconds: u64, connected: [Option<usize>; PROXIES]) {
        for _ in 0..seconds {
            self.now += 1;
            for replica in 0..REPLICAS {
                // The bound that LAG stands for.
                if self.now - self.replicas[replica].1 >= LAG.as_secs() {
                    self.hear(replica);
                }
            }
            for (proxy, replica) in connected.iter().enumerate() {
                self.proxies[proxy].replica = *replica;
                let ends = self.proxies[proxy].held.as_ref().map_or(0, |held| held.ends);
                if ends < self.now + LIFETIME / 2 {
                    self.renew(proxy);
                }
            }
            self.check();
        }
    }

    fn check(&self) {
        let valid = |p: &&Proxy| p.held.as_ref().is_some_and(|held| held.ends >= self.now);
        for a in self.proxies.iter().filter(valid) {
            for b in self.proxies.iter().filter(valid) {
                let root = a.held.as_ref().unwrap().root;
                assert!(b.roots.1.contains(&root), "at {}: {b:?} does not trust {a:?}; {:?}", self.now, self.steps);
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let connected = || proptest::array::uniform4(proptest::option::weighted(0.9, 0..REPLICAS));
    let some = || proptest::array::uniform4(any::<bool>());
    prop_oneof![
        1 => (1u8..5).prop_map(Event::Want),
        4 => (1u64..60, connected()).prop_map(|(s, c)| Event::Pass(s, c)),
        3 => (0..REPLICAS).prop_map(Event::Hear),
        4 => some().prop_map(Event::Take),
        3 => some().prop_map(Event::Renew),
        4 => Just(Event::Lead),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn at_no_moment_does_a_proxy_hold_a_certificate_that_another_does_not_believe(events in proptest::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        world.pass(1, [Some(0), Some(1), Some(0), Some(1)]);
        for event in events {
            match event {
                Event::Want(of) => world.secret.wanted = Some(signer(of)),
                Event::Pass(seconds, connected) => world.pass(seconds, connected),
                Event::Hear(replica) => world.hear(replica),
                Event::Take(who) => (0..PROXIES).filter(|p| who[*p]).for_each(|p| world.take(p)),
                Event::Renew(who) => (0..PROXIES).filter(|p| who[*p]).for_each(|p| world.renew(p)),
                Event::Lead => world.lead(),
            }
            world.check();
        }
        // And it always comes to an end.
        for _ in 0..8 {
            world.lead();
            (0..REPLICAS).for_each(|r| world.hear(r));
            (0..PROXIES).for_each(|p| world.take(p));
            world.pass(LIFETIME + LAG.as_secs() + 1, [Some(0), Some(1), Some(0), Some(1)]);
        }
        prop_assert_eq!(world.secret.stage(), Some(Stage::Steady));
        prop_assert_eq!(world.secret.trusted.len(), 1);
    }
}

#[test]
fn a_rotation_goes_on_as_soon_as_all_have_confirmed_and_ends_when_the_old_certificates_have() {
    let all = [Some(0), Some(0), Some(1), Some(1)];
    let mut world = World::new();
    world.pass(1, all);
    world.secret.wanted = Some(signer(2));
    world.lead();
    assert_eq!((world.secret.stage(), world.steps.last()), (Some(Stage::Introducing), Some(&Step::Introduce)));
    let everybody = |world: &mut World| {
        (0..REPLICAS).for_each(|r| world.hear(r));
        (0..PROXIES - 1).for_each(|p| world.take(p));
    };
    everybody(&mut world);
    world.lead();
    assert_eq!(world.secret.stage(), Some(Stage::Introducing), "one has not confirmed");
    world.take(PROXIES - 1);
    world.lead();
    assert_eq!((world.secret.stage(), world.secret.active), (Some(Stage::Draining), Some(print(2))));
    assert_eq!(world.secret.trusted.len(), 2);
    world.pass(LIFETIME + LAG.as_secs() - 1, all);
    world.lead();
    assert_eq!(world.secret.stage(), Some(Stage::Draining), "a certificate of the old one may still be valid");
    world.pass(1, all);
    world.lead();
    assert_eq!((world.secret.stage(), world.steps.last()), (Some(Stage::Steady), Some(&Step::Retire)));
}

#[test]
fn a_proxy_that_stays_away_is_waited_for_until_its_certificate_has_ended() {
    let mut world = World::new();
    world.pass(1, [Some(0), Some(1), Some(0), Some(1)]);
    world.secret.wanted = Some(signer(2));
    world.lead();
    let without = [Some(0), Some(1), Some(0), None];
    (0..REPLICAS).for_each(|r| world.hear(r));
    world.pass(1, without);
    (0..PROXIES).for_each(|p| world.take(p));
    world.pass(LIFETIME + LAG.as_secs() - 2, without);
    world.lead();
    assert_eq!(world.secret.stage(), Some(Stage::Introducing));
    world.pass(1, without);
    world.lead();
    assert_eq!(world.secret.stage(), Some(Stage::Draining));
}

#[test]
fn a_longer_lifetime_is_noted_before_it_matters() {
    let mut world = World::new();
    let around = |lifetime| Around { now: 2000, lifetime: Duration::from_secs(lifetime), confirmed: true };
    assert_eq!(world.secret.next(around(LIFETIME)), None);
    let (step, ledger) = world.secret.next(around(3600)).unwrap();
    assert_eq!((step, ledger.longest), (Step::Note, 3600));
    world.secret.ledger = ledger;
    let (step, ledger) = world.secret.next(around(LIFETIME)).unwrap();
    let ended = 2000 + 3600 + LAG.as_secs();
    assert_eq!(
        (step, ledger.longest, ledger.drained),
        (Step::Note, LIFETIME, ended),
        "what was signed with it still lives"
    );
    world.secret.ledger = ledger;
    assert_eq!(world.secret.next(around(LIFETIME)), None);
    let without = Around { confirmed: false, ..around(LIFETIME) };
    world.secret.wanted = Some(signer(2));
    world.secret.trusted.insert(print(2));
    assert_eq!(world.secret.next(Around { now: ended - 1, ..without }), None, "whoever is away may hold one of those");
    assert_eq!(world.secret.next(Around { now: ended, ..without }).unwrap().0, Step::Switch);
    let (step, ledger) = world.secret.next(around(LIFETIME)).unwrap();
    assert_eq!((step, ledger.drained, ledger.longest), (Step::Switch, ended, LIFETIME));
}

#[test]
fn what_cannot_be_used_stops_nothing_that_goes_on() {
    let mut world = World::new();
    world.secret.wanted = None;
    let around = Around { now: 5000, lifetime: Duration::from_secs(LIFETIME), confirmed: true };
    assert_eq!((world.secret.stage(), world.secret.next(around)), (None, None));
    world.secret.wanted = Some(signer(3));
    world.secret.active = None;
    let (step, ledger) = world.secret.next(around).unwrap();
    assert_eq!(step, Step::Adopt);
    assert!(ledger.revision > world.secret.ledger.revision && ledger.drained > 5000);
}

#[test]
fn whoever_any_replica_saw_trust_the_roots_is_not_missing() {
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let expected = BTreeSet::from([ProxyName::Node("a".into()), ProxyName::Node("b".into())]);
    let old = Report { revision: 1, held: names(&["node/a", "node/b"]), behind: BTreeSet::new() };
    let new = Report { revision: 2, held: names(&["node/a"]), behind: names(&["gateway/s/g"]) };
    let moved = Report { revision: 2, held: names(&["gateway/s/g"]), behind: names(&["node/a"]) };
    let reports = |all: &[(&str, &Report)]| all.iter().map(|(n, r)| ((*n).to_owned(), (*r).clone())).collect();
    assert_eq!(missing(2, &expected, &reports(&[("x", &old)])), names(&["node/a", "node/b"]));
    assert_eq!(missing(2, &expected, &reports(&[("x", &old), ("y", &new)])), names(&["gateway/s/g", "node/b"]));
    assert_eq!(missing(2, &expected, &reports(&[("x", &moved), ("y", &new)])), names(&["node/b"]));
}
