//! Which proxy may have which identity, from the mesh and nothing else. Pure. It must not know how a proxy proves its name.

use mesh_core::{
    identity::{Identity, TrustDomain},
    mesh::{MeshSettings, Workload},
    name::{NsName, ProxyName, Text},
    node::{NodeDelta, Resource, ResourceId},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// The index over the published mesh that signing reads. A node proxy may have the identities of the meshed pods scheduled on its node; a
/// gateway proxy that of its Gateway.
#[derive(Debug, Default)]
pub struct Entitled {
    settings: Option<Arc<MeshSettings>>,
    pods: HashMap<NsName, Arc<Workload>>,
    /// Node → identity → how many meshed pods have it there.
    nodes: BTreeMap<Text, BTreeMap<Identity, usize>>,
    gateways: BTreeSet<NsName>,
}

/// Why a proxy does not get an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// The controller has not read its objects yet.
    #[error("the mesh is not planned yet; ask again")]
    NotYet,
    /// No such pod there.
    #[error("{proxy} may not have {identity}: no meshed pod with this identity is scheduled on that node")]
    NoPod {
        /// Who asks.
        proxy: ProxyName,
        /// For what.
        identity: Identity,
    },
    /// A gateway proxy asks for somebody else.
    #[error("{proxy} may not have {identity}: a gateway proxy may only have {own}")]
    NotOwn {
        /// Who asks.
        proxy: ProxyName,
        /// For what.
        identity: Identity,
        /// What it may have.
        own: Identity,
    },
    /// The Gateway does not exist (any more), or is not ours.
    #[error("{proxy} may not have {identity}: there is no such Gateway of this mesh")]
    NoGateway {
        /// Who asks.
        proxy: ProxyName,
        /// For what.
        identity: Identity,
    },
}

impl NotEntitled {
    /// Bounded label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotYet => "not_yet",
            Self::NoPod { .. } => "no_pod",
            Self::NotOwn { .. } => "not_own",
            Self::NoGateway { .. } => "no_gateway",
        }
    }
}

impl Entitled {
    /// Follows a change of the published mesh.
    pub fn apply(&mut self, delta: &NodeDelta) {
        for id in &delta.removes {
            match id {
                ResourceId::Workload(pod) => self.replace(pod, None),
                ResourceId::Gateway(gateway) => {
                    self.gateways.remove(gateway);
                }
                _ => {}
            }
        }
        for resource in &delta.upserts {
            match resource {
                Resource::Settings(settings) => self.settings = Some(settings.clone()),
                Resource::Workload(pod) => self.replace(&pod.id, Some(pod)),
                Resource::Gateway(gateway) => {
                    self.gateways.insert(gateway.id.clone());
                }
                _ => {}
            }
        }
    }

    /// The lifetime that a proxy gets for an identity, or why it does not get it.
    pub fn lifetime(&self, proxy: &ProxyName, identity: &Identity) -> Result<Duration, NotEntitled> {
        let settings = self.settings.as_ref().ok_or(NotEntitled::NotYet)?;
        let (proxy, identity) = (proxy.clone(), identity.clone());
        match &proxy {
            ProxyName::Node(node) => {
                let there = self.nodes.get(node).is_some_and(|ids| ids.contains_key(&identity));
                if !there {
                    return Err(NotEntitled::NoPod { proxy, identity });
                }
            }
            ProxyName::Gateway(gateway) => match gateway_identity(&settings.trust_domain, gateway) {
                Some(own) if own != identity => return Err(NotEntitled::NotOwn { proxy, identity, own }),
                Some(_) if self.gateways.contains(gateway) => {}
                _ => return Err(NotEntitled::NoGateway { proxy, identity }),
            },
        }
        Ok(settings.svid_lifetime)
    }

    /// What the settings say.
    pub fn svid_lifetime(&self) -> Option<Duration> {
        self.settings.as_ref().map(|settings| settings.svid_lifetime)
    }

    /// Node proxies that have meshed pods, and so certificates.
    pub fn holders(&self) -> BTreeSet<ProxyName> {
        self.nodes.keys().cloned().map(ProxyName::Node).collect()
    }

    fn replace(&mut self, id: &NsName, pod: Option<&Arc<Workload>>) {
        if let Some(old) = self.pods.remove(id)
            && let Some(identities) = self.nodes.get_mut(&old.node)
        {
            if let Some(pods) = identities.get_mut(&old.identity) {
                *pods -= 1;
                if *pods == 0 {
                    identities.remove(&old.identity);
                }
            }
            if identities.is_empty() {
                self.nodes.remove(&old.node);
            }
        }
        if let Some(pod) = pod.filter(|pod| pod.enrolment.is_meshed() && !pod.node.is_empty()) {
            self.pods.insert(id.clone(), pod.clone());
            let identities = self.nodes.entry(pod.node.clone()).or_default();
            *identities.entry(pod.identity.clone()).or_default() += 1;
        }
    }
}

/// `spiffe://TD/ns/<gateway namespace>/sa/<gateway name>`; none if its name cannot be part of an identity.
fn gateway_identity(trust_domain: &TrustDomain, gateway: &NsName) -> Option<Identity> {
    Identity::new(trust_domain.clone(), &gateway.namespace, &gateway.name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::mesh::{AccessLog, Enrolment, Gateway, Limits, Mode};

    fn id(text: &str) -> Identity {
        format!("spiffe://cluster.local/ns/{}", text.replace('/', "/sa/")).parse().unwrap()
    }

    fn pod(name: &str, node: &str, account: &str, enrolment: Enrolment) -> Resource {
        Resource::Workload(Arc::new(Workload {
            id: NsName::new("shop", name),
            uid: name.into(),
            node: node.into(),
            addresses: vec![],
            identity: id(&format!("shop/{account}")),
            enrolment,
            owner: name.into(),
            probes: [].into(),
        }))
    }

    fn settings() -> Resource {
        Resource::Settings(Arc::new(MeshSettings {
            name: "heddle".into(),
            trust_domain: TrustDomain::new("cluster.local").unwrap(),
            mode: Some(Mode::Strict),
            svid_lifetime: Duration::from_secs(60),
            tracing: None,
            access_log: AccessLog::All,
            limits: Limits::default(),
        }))
    }

    const MESHED: Enrolment = Enrolment::Meshed(Mode::Strict);

    fn upsert(upserts: Vec<Resource>) -> NodeDelta {
        NodeDelta { upserts, removes: vec![] }
    }

    fn may(entitled: &Entitled, proxy: &str, identity: &str) -> Result<Duration, String> {
        entitled.lifetime(&proxy.parse().unwrap(), &id(identity)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_node_may_have_what_is_scheduled_there_and_nothing_else() {
        let mut entitled = Entitled::default();
        assert!(may(&entitled, "node/n1", "shop/cart").unwrap_err().contains("not planned yet"));
        entitled.apply(&upsert(vec![
            settings(),
            pod("cart-1", "n1", "cart", MESHED),
            pod("cart-2", "n1", "cart", MESHED),
            pod("pay-1", "n2", "pay", MESHED),
            pod("plain", "n1", "plain", Enrolment::None),
            pod("pending", "", "pending", MESHED),
        ]));
        assert_eq!(may(&entitled, "node/n1", "shop/cart"), Ok(Duration::from_secs(60)));
        for (node, account) in [
            ("n2", "shop/cart"),
            ("n1", "shop/pay"),
            ("n1", "bank/cart"),
            ("n1", "shop/plain"),
            ("n1", "shop/pending"),
            ("n3", "shop/cart"),
        ] {
            let why = may(&entitled, &format!("node/{node}"), account).unwrap_err();
            assert!(why.contains(node) && why.contains("no meshed pod"), "{why}");
        }
        let foreign = "spiffe://evil/ns/shop/sa/cart".parse().unwrap();
        assert!(entitled.lifetime(&"node/n1".parse().unwrap(), &foreign).is_err());
    }

    #[test]
    fn entitlement_ends_with_the_last_pod_and_moves_with_a_pod() {
        let mut entitled = Entitled::default();
        entitled.apply(&upsert(vec![settings(), pod("a", "n1", "cart", MESHED), pod("b", "n1", "cart", MESHED)]));
        let gone =
            |name: &str| NodeDelta { upserts: vec![], removes: vec![ResourceId::Workload(NsName::new("shop", name))] };
        entitled.apply(&gone("a"));
        assert!(may(&entitled, "node/n1", "shop/cart").is_ok());
        entitled.apply(&upsert(vec![pod("b", "n2", "cart", MESHED)]));
        assert!(may(&entitled, "node/n1", "shop/cart").is_err() && may(&entitled, "node/n2", "shop/cart").is_ok());
        entitled.apply(&upsert(vec![pod("b", "n2", "cart", Enrolment::None)]));
        assert!(may(&entitled, "node/n2", "shop/cart").is_err());
        assert!(entitled.pods.is_empty() && entitled.nodes.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_gateway_may_have_its_own_identity_only_while_it_exists() {
        let mut entitled = Entitled::default();
        let gateway = Gateway { id: NsName::new("shop", "front"), addresses: vec![], listeners: vec![] };
        entitled.apply(&upsert(vec![settings(), pod("a", "n1", "cart", MESHED)]));
        assert!(may(&entitled, "gateway/shop/front", "shop/front").unwrap_err().contains("no such Gateway"));
        entitled.apply(&upsert(vec![Resource::Gateway(Arc::new(gateway))]));
        assert!(may(&entitled, "gateway/shop/front", "shop/front").is_ok());
        let why = may(&entitled, "gateway/shop/front", "shop/cart").unwrap_err();
        assert!(why.contains("may only have spiffe://cluster.local/ns/shop/sa/front"), "{why}");
        let removes = vec![ResourceId::Gateway(NsName::new("shop", "front"))];
        entitled.apply(&NodeDelta { upserts: vec![], removes });
        assert!(may(&entitled, "gateway/shop/front", "shop/front").is_err());
    }
}
