//! The check: what a cluster lacks before an installation, and whether all is well after one. It must not mend; it says what to do.

mod after;
mod before;

use super::{
    NAMESPACE,
    access::Access,
    finding::{Finding, Findings},
    trial,
};
use anyhow::{Result, bail};

pub(super) use before::before;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// What an installation needs.
    Before,
    /// What is installed.
    After,
}

/// Looks at everything, tells what it finds, and is an error if anything is wrong.
pub async fn check(access: &Access, when: Option<When>, traffic: bool) -> Result<()> {
    let mut findings = Findings::default();
    let installed = access.get("Deployment", NAMESPACE, "mesh-controller").await?.is_some();
    if when != Some(When::After) {
        findings.tell(before::before(access).await?);
    }
    match (when, installed) {
        (Some(When::Before), _) => {}
        (None, false) => println!("Heddle is not installed: meshctl install"),
        (Some(When::After), false) => {
            findings.tell([Finding::wrong("Heddle is not installed", "meshctl install")]);
        }
        (_, true) => {
            findings.tell(after::after(access).await?);
            if traffic && findings.wrong() {
                println!("what is above comes first: the test with traffic is left out");
            } else if traffic {
                let strict = after::strict(access).await?;
                match trial::trial(access, strict).await {
                    Ok(found) => findings.tell(found),
                    Err(error) => findings.tell([Finding::wrong(
                        format!("the test with traffic could not be done: {error:#}"),
                        "the message says what stood in its way",
                    )]),
                }
            }
        }
    }
    if findings.wrong() {
        bail!("something is wrong");
    }
    Ok(())
}
