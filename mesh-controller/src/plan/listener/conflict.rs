//! Conflicts between the listeners of a Gateway: those that no request can tell apart. All of them lose; none is picked.

use super::{Draft, Speaks};
use crate::plan::{attach::Refusal, hostname, status::reason};

/// Marks listeners that are not distinct, and TLS listeners whose hostnames overlap.
pub(super) fn find(drafts: &mut [Draft<'_>]) {
    for i in 0..drafts.len() {
        let mut conflict = None;
        let mut overlaps = Vec::new();
        let Ok(mine) = drafts[i].speaks else { continue };
        for (j, other) in drafts.iter().enumerate() {
            let Ok(theirs) = other.speaks else { continue };
            if i == j || other.port != drafts[i].port {
                continue;
            }
            let name = &other.spec.name;
            if let Some(reason) = clash(mine, theirs, drafts[i].hostname == other.hostname) {
                conflict.get_or_insert_with(|| {
                    Refusal::new(reason, format!("not distinct from listener {name} on port {}", other.port))
                });
            } else if mine.is_tls() && theirs.is_tls() && overlap(&drafts[i], other) {
                overlaps.push(name.as_str());
            }
        }
        drafts[i].conflict = conflict;
        drafts[i].overlaps = overlaps;
    }
}

/// Gateway.spec.listeners: "The set of listeners that all share a protocol value MUST have different values for at least one of these
/// fields to be distinct: HTTP, HTTPS, TLS: Port, Hostname; TCP, UDP: Port"; "all the Listeners that share a port with the TCP Listener
/// are not distinct". HTTPS and TLS share a port by server name; plaintext shares a port with neither.
fn clash(mine: Speaks, theirs: Speaks, same_hostname: bool) -> Option<&'static str> {
    if mine == Speaks::Tcp || theirs == Speaks::Tcp || mine.is_tls() != theirs.is_tls() {
        return Some(reason::PROTOCOL_CONFLICT);
    }
    same_hostname.then_some(reason::HOSTNAME_CONFLICT)
}

fn overlap(a: &Draft<'_>, b: &Draft<'_>) -> bool {
    match (&a.hostname, &b.hostname) {
        (Some(a), Some(b)) => hostname::overlap(a, b),
        // No hostname is every hostname.
        (None, _) | (_, None) => true,
    }
}
