//! The authority of a cluster against an API server in memory: who makes the Secret, what is accepted from a user, whole rotations over two replicas, and what goes on when things are wrong.

use super::{
    contents::{Contents, bundle},
    *,
};
use crate::ca::rotation::Stage;
use http::{Method, Request, Response};
use k8s_openapi::ByteString;
use kube::client::Body;
use mesh_core::name::ProxyName;
use mesh_tls::{KeyRequest, Svid};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
};

/// Objects by path, with versions, creation and merge patches, as far as the authority uses them.
#[derive(Clone, Default)]
struct ApiServer {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    version: Arc<Mutex<u64>>,
    down: Arc<AtomicBool>,
}

const SECRETS: &str = "/api/v1/namespaces/heddle-system/secrets";
const BUNDLES: &str = "/api/v1/namespaces/heddle-system/configmaps";

impl ApiServer {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, said) = server.answer(&method, &path, body);
                let body = Body::from(said.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "heddle-system")
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let status = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Other" };
            let message = format!("{path}: {code}");
            (code, json!({"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}))
        };
        if self.down.load(Ordering::SeqCst) {
            return status(500);
        }
        let mut objects = self.objects.lock();
        match *method {
            Method::GET => objects.get(path).map_or_else(|| status(404), |found| (200, found.clone())),
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return status(409);
                }
                objects.insert(path.clone(), body);
                (201, self.stamp(objects.get_mut(&path).unwrap()))
            }
            Method::PATCH => {
                let Some(found) = objects.get_mut(path) else { return status(404) };
                let wanted = &body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != found["metadata"]["resourceVersion"] {
                    return status(409);
                }
                merge(found, &body);
                (200, self.stamp(found))
            }
            _ => status(405),
        }
    }

    fn stamp(&self, object: &mut Value) -> Value {
        let mut version = self.version.lock();
        *version += 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object.clone()
    }

    fn secret(&self) -> Secret {
        serde_json::from_value(self.objects.lock()[&format!("{SECRETS}/{SECRET}")].clone()).unwrap()
    }

    fn bundle(&self) -> Value {
        self.objects.lock()[&format!("{BUNDLES}/{BUNDLE}")]["data"].clone()
    }

    /// As a user or cert-manager writes it.
    fn put(&self, fields: &[(&str, &str)]) {
        let data: BTreeMap<_, _> =
            fields.iter().map(|(name, text)| (*name, ByteString(text.as_bytes().to_vec()))).collect();
        let path = format!("{SECRETS}/{SECRET}");
        let known = self.objects.lock().contains_key(&path);
        let body = json!({"metadata": {"name": SECRET}, "type": "kubernetes.io/tls", "data": data});
        let (code, said) = match known {
            true => self.answer(&Method::PATCH, &path, body),
            false => self.answer(&Method::POST, SECRETS, body),
        };
        assert!(code < 300, "{said}");
    }

    fn annotate(&self, annotations: Value) {
        let body = json!({"metadata": {"annotations": annotations}});
        assert_eq!(self.answer(&Method::PATCH, &format!("{SECRETS}/{SECRET}"), body).0, 200);
    }
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            value => merge(&mut into[name], value),
        }
    }
}

/// A replica's surroundings, as the test says they are.
#[derive(Default)]
struct Said {
    leads: AtomicBool,
    holders: Mutex<BTreeSet<ProxyName>>,
    connected: Mutex<BTreeMap<ProxyName, u64>>,
    lifetime: Mutex<Option<Duration>>,
}

impl Surroundings for Said {
    fn leads(&self) -> bool {
        self.leads.load(Ordering::SeqCst)
    }
    fn lifetime(&self) -> Option<Duration> {
        *self.lifetime.lock()
    }
    fn holders(&self) -> BTreeSet<ProxyName> {
        self.holders.lock().clone()
    }
    fn trusting(&self, revision: u64) -> (BTreeSet<ProxyName>, BTreeSet<ProxyName>) {
        self.connected.lock().iter().fold(Default::default(), |(mut held, mut behind), (name, at)| {
            if *at >= revision { &mut held } else { &mut behind }.insert(name.clone());
            (held, behind)
        })
    }
}

struct Replica {
    authority: Arc<ClusterAuthority>,
    keeper: Keeper,
    said: Arc<Said>,
}

impl Replica {
    async fn start(server: &ApiServer, name: &str) -> Self {
        let authority = ClusterAuthority::open(&server.client(), "heddle-system").await.unwrap();
        let said = Arc::new(Said::default());
        *said.lifetime.lock() = Some(Duration::from_secs(3600));
        let keeper =
            Keeper::new(&server.client(), "heddle-system", name, authority.clone(), said.clone(), Metrics::default());
        Self { authority, keeper, said }
    }

    /// What the watches would say, and one look.
    async fn look(&mut self, server: &ApiServer) {
        let bundle = server.objects.lock().get(&format!("{BUNDLES}/{BUNDLE}")).cloned();
        self.keeper.look_at(server.secret(), bundle.map(|b| serde_json::from_value(b).unwrap())).await;
    }

    fn revision(&self) -> u64 {
        self.authority.standing().borrow().roots.revision
    }

    async fn svid(&self) -> Svid {
        let cart: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let request = KeyRequest::new(&cart).unwrap();
        let issued = self.authority.sign(request.csr(), &cart, Duration::from_secs(60)).await.unwrap();
        let roots = issued.roots.certificates.iter().map(|der| der.to_vec().into()).collect();
        Svid::new(cart, issued.signed.chain, request.into_key(), roots).unwrap()
    }
}

fn stage(server: &ApiServer) -> Option<Stage> {
    Contents::read(&server.secret()).seen.stage()
}

/// A root of a user, and what it may sign.
struct Pki(CertifiedIssuer<'static, KeyPair>);

fn authority(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    edit(&mut params);
    params
}

impl Pki {
    fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name, |_| {}), KeyPair::generate().unwrap()).unwrap())
    }

    fn intermediate(&self, edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (authority("intermediate", edit).signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn pair(&self) -> (String, String) {
        (self.0.pem(), self.0.key().serialize_pem())
    }
}

#[tokio::test]
async fn the_first_replica_makes_the_root_and_all_others_read_it() {
    let server = ApiServer::default();
    let (a, b) = tokio::join!(Replica::start(&server, "a"), Replica::start(&server, "b"));
    let (from_a, from_b) = (a.svid().await, b.svid().await);
    assert_eq!(from_a.roots(), from_b.roots());
    assert_eq!(server.secret().type_.as_deref(), Some("kubernetes.io/tls"));
    let mut again = Replica::start(&server, "c").await;
    assert_eq!(again.svid().await.roots(), from_a.roots());
    again.said.leads.store(true, Ordering::SeqCst);
    again.look(&server).await;
    assert_eq!(stage(&server), Some(Stage::Steady));
    assert!(again.revision() > 0, "now it is numbered");
    let roots: Vec<Arc<[u8]>> = from_a.roots().iter().map(|der| Arc::from(&**der)).collect();
    assert_eq!(server.bundle()["ca.crt"], json!(bundle(&roots)));
    let version = server.secret().metadata.resource_version;
    again.look(&server).await;
    assert_eq!(server.secret().metadata.resource_version, version, "nothing to do, nothing written");
}

#[tokio::test]
async fn a_users_intermediate_signs_under_his_root_and_the_root_is_never_sent() {
    let server = ApiServer::default();
    let pki = Pki::new("corporate");
    let (certificate, key) = pki.intermediate(|_| {});
    server.put(&[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &pki.0.pem())]);
    let replica = Replica::start(&server, "a").await;
    let svid = replica.svid().await;
    assert_eq!((svid.chain().len(), svid.roots()), (2, &[pki.0.der().clone()][..]));
}

#[tokio::test]
async fn what_cannot_be_used_is_said_with_field_and_reason_and_the_last_good_one_signs_on() {
    let server = ApiServer::default();
    let mut replica = Replica::start(&server, "a").await;
    replica.said.leads.store(true, Ordering::SeqCst);
    replica.look(&server).await;
    let before = replica.svid().await;
    let (pki, other) = (Pki::new("corporate"), Pki::new("other"));
    let (root, root_key) = pki.pair();
    let key = || KeyPair::generate().unwrap().serialize_pem();
    let leaf = pki.intermediate(|params| params.is_ca = IsCa::ExplicitNoCa);
    let unsigning = pki.intermediate(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let expired = pki.intermediate(|params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let later = pki.intermediate(|params| params.not_before = rcgen::date_time_ymd(2200, 1, 1));
    let good = pki.intermediate(|_| {});
    for (certificate, key, roots, says) in [
        (root.as_str(), key().as_str(), "", "tls.key: is not the key of the first certificate of tls.crt"),
        (&root, "nonsense", "", "tls.key: is not a key that can sign"),
        ("nonsense", &root_key, "", "tls.crt: has no certificate"),
        (&leaf.0, &leaf.1, &root, "tls.crt: is not a certificate of an authority"),
        (&unsigning.0, &unsigning.1, &root, "tls.crt: may not sign certificates"),
        (&expired.0, &expired.1, &root, "tls.crt: expired at"),
        (&later.0, &later.1, &root, "tls.crt: is valid only from"),
        (&good.0, &good.1, "", "ca.crt: has no root that is valid now"),
        (&good.0, &good.1, &other.0.pem(), "tls.crt: every proxy would refuse what it signs"),
        (&good.0, &good.1, &leaf.0, "ca.crt: certificate 1: is not a certificate of an authority"),
    ] {
        server.put(&[("tls.crt", certificate), ("tls.key", key), ("ca.crt", roots)]);
        let bad = Contents::read(&server.secret()).wanted.err().unwrap().to_string();
        assert!(bad.starts_with(says), "{bad} instead of {says}");
        replica.look(&server).await;
        assert_eq!(replica.svid().await.roots(), before.roots(), "{says}");
        let progress: Value = serde_json::from_str(server.bundle()["rotation.json"].as_str().unwrap()).unwrap();
        let problem = progress["problem"].as_str().unwrap();
        assert!(problem.contains("heddle-system/heddle-ca") && problem.contains(says), "{problem}");
    }
    server.objects.lock().clear();
    server.put(&[("tls.crt", &root), ("tls.key", "nonsense")]);
    let fault = attempt(&Api::namespaced(server.client(), "heddle-system"), "heddle-system").await.err().unwrap();
    assert!(fault.to_string().contains("Secret heddle-system/heddle-ca: tls.key: is not a key"), "{fault}");
}

/// Two replicas and two nodes through a whole rotation; at each point both replicas are started anew.
#[tokio::test]
async fn a_rotation_that_was_asked_for_goes_through_all_its_stages_whoever_leads_and_restarts() {
    let server = ApiServer::default();
    let nodes = [ProxyName::Node("n1".into()), ProxyName::Node("n2".into())];
    let said: [Arc<Said>; 2] = Default::default();
    let round = async |leader: usize| {
        let mut replicas = Vec::new();
        for (at, name) in ["a", "b"].into_iter().enumerate() {
            let mut replica = Replica::start(&server, name).await;
            replica.keeper.around = said[at].clone();
            said[at].leads.store(at == leader, Ordering::SeqCst);
            *said[at].lifetime.lock() = Some(Duration::from_secs(3600));
            *said[at].holders.lock() = nodes.iter().cloned().collect();
            replica.look(&server).await;
            replica.look(&server).await;
            replicas.push(replica);
        }
        replicas
    };
    let connect = |node: usize, revision: u64| said[node].connected.lock().insert(nodes[node].clone(), revision);
    let first = round(0).await;
    let (old, revision) = (first[0].svid().await, first[0].revision());
    (0..2).for_each(|n| {
        connect(n, revision);
    });
    server.annotate(json!({ REQUEST: "now" }));
    let replicas = round(1).await;
    assert_eq!(stage(&server), Some(Stage::Introducing));
    assert!(server.secret().metadata.annotations.unwrap_or_default().is_empty(), "asked once, answered once");
    let (introduced, next) = (replicas[1].svid().await, replicas[1].revision());
    assert!(next > revision && introduced.roots().len() == 2);
    assert_eq!(introduced.chain().len(), 1);
    connect(0, next);
    round(0).await;
    round(1).await;
    assert_eq!(stage(&server), Some(Stage::Introducing), "one node has not confirmed");
    let progress: Value = serde_json::from_str(server.bundle()["rotation.json"].as_str().unwrap()).unwrap();
    assert_eq!((&progress["waitingFor"], &progress["confirmed"]), (&json!(["node/n2"]), &json!(1)));
    connect(1, next);
    round(0).await;
    round(0).await;
    assert_eq!(stage(&server), Some(Stage::Draining));
    let replicas = round(1).await;
    let new = replicas[0].svid().await;
    assert_eq!((new.roots().len(), replicas[0].revision()), (2, next), "the roots are the same; who signs is not");
    let only = |svid: &Svid| new.roots().iter().filter(|root| svid.with_roots(&one(root)).is_ok()).count();
    assert!(only(&old) == 1 && only(&new) == 1 && old.with_roots(&one(&old.roots()[0])).is_ok());
    assert!(new.with_roots(&one(&old.roots()[0])).is_err(), "another root signs");
    // The longest certificate of the old one ends.
    let path = format!("{SECRETS}/{SECRET}");
    let mut ledger = Contents::read(&server.secret()).seen.ledger;
    ledger.drained = 1;
    let text = serde_json::to_string(&ledger).unwrap();
    let data = json!({"data": {"rotation.json": ByteString(text.into_bytes())}});
    assert_eq!(server.answer(&Method::PATCH, &path, data).0, 200);
    let last = round(0).await;
    assert_eq!(stage(&server), Some(Stage::Steady));
    assert!(last[0].svid().await.roots().len() == 1 && last[0].revision() > next);
    round(1).await;
    let fields: Vec<String> = server.bundle().as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["ca.crt", "rotation.json"], "reports go with the rotation");
}

fn one(root: &rustls::pki_types::CertificateDer<'_>) -> Roots {
    Roots { revision: 1, certificates: vec![Arc::from(&**root)] }
}

#[tokio::test]
async fn a_root_that_cert_manager_renews_is_rotated_too_but_not_by_us() {
    let server = ApiServer::default();
    let (old, new) = (Pki::new("corporate 1").pair(), Pki::new("corporate 2").pair());
    server.put(&[("tls.crt", &old.0), ("tls.key", &old.1), ("ca.crt", &old.0)]);
    server.annotate(json!({"cert-manager.io/certificate-name": "heddle-ca", REQUEST: "now"}));
    let mut replica = Replica::start(&server, "a").await;
    replica.said.leads.store(true, Ordering::SeqCst);
    *replica.said.holders.lock() = BTreeSet::from([ProxyName::Node("n1".into())]);
    replica.look(&server).await;
    assert_eq!(stage(&server), Some(Stage::Steady), "its owner makes new ones");
    assert!(!server.secret().metadata.annotations.unwrap().contains_key(REQUEST));
    let before = replica.svid().await;
    server.put(&[("tls.crt", &new.0), ("tls.key", &new.1), ("ca.crt", &new.0)]);
    replica.look(&server).await;
    assert_eq!(stage(&server), Some(Stage::Introducing));
    let during = replica.svid().await;
    assert!(
        during.roots().len() == 2 && during.with_roots(&one(&before.roots()[0])).is_ok(),
        "the old one still signs"
    );
}

#[tokio::test]
async fn an_api_server_that_is_away_stops_no_signature_and_a_deleted_secret_is_put_back() {
    let server = ApiServer::default();
    let mut replica = Replica::start(&server, "a").await;
    replica.said.leads.store(true, Ordering::SeqCst);
    replica.look(&server).await;
    let before = server.secret();
    server.annotate(json!({ REQUEST: "now" }));
    server.down.store(true, Ordering::SeqCst);
    replica.look(&server).await;
    replica.svid().await;
    server.down.store(false, Ordering::SeqCst);
    server.objects.lock().remove(&format!("{SECRETS}/{SECRET}"));
    replica.keeper.restore().await;
    assert_eq!(server.secret().data, before.data);
}
