//! Installing and upgrading: what is applied, in which order, and what is waited for. It must not leave a node without an agent: pods that start then would wait.

use super::{
    MESH, NAMESPACE, WORKLOADS,
    access::{Access, Applied, name_of},
    check,
    finding::Findings,
    manifests::{self, Changes, Mode},
    rollout,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A definition is served moments after it is accepted.
const DEFINED: Duration = Duration::from_secs(30);

/// What of an installation is a choice; what is not given stays as it is, or has its default.
#[derive(Args, Clone, Debug, Default)]
pub struct Choice {
    /// Registry of the images, with its path [default: heddle.dev]
    #[arg(long, value_name = "HOST/PATH")]
    pub registry: Option<String>,
    /// Tag of the images [default: v and the version of this program]
    #[arg(long = "image-version", value_name = "TAG")]
    pub version: Option<String>,
    /// Whether meshed pods refuse plaintext [default: strict]
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Trust domain of all identities; it cannot be changed later [default: cluster.local]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// Replicas of the controller [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub replicas: Option<u32>,
    /// Go on although the check before found something wrong
    #[arg(long)]
    pub force: bool,
    /// How long all of it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

impl Choice {
    fn changes(&self) -> Changes {
        Changes {
            registry: self.registry.clone(),
            version: self.version.clone(),
            replicas: self.replicas,
            mode: self.mode,
            trust_domain: self.trust_domain.clone(),
        }
    }
}

/// Installs, or brings what is there to what is chosen; running it again changes nothing.
pub async fn install(access: &Access, choice: &Choice) -> Result<()> {
    checked(access, choice).await?;
    let bundle = manifests::bundle(&choice.changes())?;
    define(access, &bundle.definitions).await?;
    apply(access, &bundle.objects).await?;
    let started = Instant::now();
    for (kind, name) in WORKLOADS {
        rollout::wait(access, kind, name, left(choice, started)).await?;
    }
    accepted(access, left(choice, started)).await?;
    println!("Heddle runs. Take a namespace into the mesh, also one that is live:");
    println!("  kubectl label namespace NAME heddle.dev/mesh=enabled");
    println!("and see that all is well: meshctl check");
    Ok(())
}

/// Replaces what runs by what this program carries: definitions and rights, then one workload after the other.
pub async fn upgrade(access: &Access, choice: &Choice) -> Result<()> {
    let Some(running) = access.get("Deployment", NAMESPACE, "mesh-controller").await? else {
        bail!("Heddle is not installed here: meshctl install");
    };
    let mut changes = choice.changes();
    let image = rollout::text_at(&running, "/spec/template/spec/containers/0/image");
    let (registry, tag) = manifests::parts(image).with_context(|| format!("image {image:?} of mesh-controller"))?;
    changes.registry = changes.registry.or_else(|| Some(registry.to_owned()));
    let replicas = running.pointer("/spec/replicas").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    changes.replicas = changes.replicas.or(replicas);
    let version = changes.version.clone().unwrap_or_else(|| concat!("v", env!("CARGO_PKG_VERSION")).to_owned());
    println!("from {tag} to {version}");
    checked(access, choice).await?;
    let bundle = manifests::bundle(&changes)?;
    define(access, &bundle.definitions).await?;
    let workload = |object: &&Value| WORKLOADS.iter().any(|(kind, _)| object["kind"] == *kind);
    let (later, now): (Vec<&Value>, Vec<&Value>) = bundle.objects.iter().partition(workload);
    apply(access, now).await?;
    let started = Instant::now();
    // The controller first: it speaks to proxies of the old version too. An agent is replaced while the plugin, its entry and the
    // proxy's listeners stay; a proxy only after its successor has taken over.
    for (kind, name) in WORKLOADS {
        apply(access, later.iter().copied().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name)).await?;
        rollout::wait(access, kind, name, left(choice, started)).await?;
    }
    accepted(access, left(choice, started)).await?;
    println!("upgraded to {version}");
    Ok(())
}

async fn checked(access: &Access, choice: &Choice) -> Result<()> {
    let mut findings = Findings::default();
    findings.tell(check::before(access).await?);
    if findings.wrong() && !choice.force {
        bail!("nothing was changed; mend what is wrong, or --force");
    }
    Ok(())
}

fn left(choice: &Choice, started: Instant) -> Duration {
    Duration::from_secs(choice.timeout).saturating_sub(started.elapsed()).max(Duration::from_secs(1))
}

async fn define(access: &Access, definitions: &[Value]) -> Result<()> {
    apply(access, definitions).await?;
    for definition in definitions {
        let name = rollout::text_at(definition, "/metadata/name");
        let deadline = Instant::now() + DEFINED;
        while !access
            .get("CustomResourceDefinition", "", name)
            .await?
            .and_then(|d| rollout::condition(&d, "Established").map(|c| c["status"] == "True"))
            .unwrap_or(false)
        {
            if Instant::now() >= deadline {
                bail!("definition {name} is not established after {DEFINED:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

pub(super) async fn apply(access: &Access, objects: impl IntoIterator<Item = &Value>) -> Result<()> {
    for object in objects {
        match access.apply(object).await? {
            Applied::Created => println!("created {}", name_of(object)),
            Applied::Changed => println!("changed {}", name_of(object)),
            Applied::Same => println!("as it was {}", name_of(object)),
        }
    }
    Ok(())
}

/// Waits until the mesh is programmed: every connected proxy has taken the settings.
pub(super) async fn accepted(access: &Access, within: Duration) -> Result<()> {
    let (deadline, mut told) = (Instant::now() + within, String::new());
    loop {
        let mesh = access.get("XMesh", "", MESH).await?;
        let (done, text) = programmed(mesh.as_ref());
        if text != told {
            println!("  XMesh {MESH}: {text}");
            told = text;
        }
        if done {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("XMesh {MESH} is not programmed after {within:?}: {told}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What the conditions of our XMesh say.
pub(super) fn programmed(mesh: Option<&Value>) -> (bool, String) {
    let Some(mesh) = mesh else { return (false, "not made yet by the controller".into()) };
    let mut text = Vec::new();
    for kind in ["Accepted", "Programmed"] {
        let Some(found) = rollout::condition(mesh, kind) else { return (false, format!("{kind} is not said yet")) };
        if found["status"] != "True" {
            let (reason, message) = (rollout::text_at(found, "/reason"), rollout::text_at(found, "/message"));
            return (false, format!("not {kind}: {reason}: {message}"));
        }
        if found["observedGeneration"] != mesh["metadata"]["generation"] {
            return (false, format!("{kind} is said of an older generation"));
        }
        text.push(kind);
    }
    (true, text.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mesh_is_programmed_when_both_conditions_are_true_of_this_generation() {
        let mesh = |accepted: &str, programmed: &str, seen: i64| {
            let one = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": seen});
            json!({"metadata": {"generation": 2}, "status": {"conditions": [one("Accepted", accepted), one("Programmed", programmed)]}})
        };
        assert!(programmed(Some(&mesh("True", "True", 2))).0);
        assert!(!programmed(Some(&mesh("True", "True", 1))).0);
        assert_eq!(programmed(Some(&mesh("False", "True", 2))).1, "not Accepted: R: m");
        assert!(!programmed(None).0);
    }
}
