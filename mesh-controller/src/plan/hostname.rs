//! Hostnames of listeners and routes: reading and overlap. It must not match requests; the proxy does.

use mesh_core::mesh::HostPattern;

/// Reads a hostname or `*.suffix`; none if it is neither.
pub(super) fn parse(text: &str) -> Option<HostPattern> {
    let lower = text.to_ascii_lowercase();
    let (wildcard, name) = lower.strip_prefix("*.").map_or((false, lower.as_str()), |suffix| (true, suffix));
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return None;
    }
    Some(if wildcard { HostPattern::Wildcard(name.into()) } else { HostPattern::Exact(name.into()) })
}

/// The route's own hostnames that some request of the listener can have; none if there is no such request.
pub(super) fn intersect(listener: Option<&HostPattern>, route: &[HostPattern]) -> Option<Vec<HostPattern>> {
    let Some(listener) = listener else { return Some(route.to_vec()) };
    if route.is_empty() {
        return Some(Vec::new());
    }
    let common: Vec<HostPattern> = route.iter().filter(|host| overlap(listener, host)).cloned().collect();
    (!common.is_empty()).then_some(common)
}

/// Whether some name matches both.
pub(super) fn overlap(a: &HostPattern, b: &HostPattern) -> bool {
    // "`*.example.com` would match both `test.example.com`, and `foo.test.example.com`, but not `example.com`" (HTTPRoute.hostnames).
    let below = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match (a, b) {
        (HostPattern::Exact(a), HostPattern::Exact(b)) => a == b,
        (HostPattern::Exact(name), HostPattern::Wildcard(suffix))
        | (HostPattern::Wildcard(suffix), HostPattern::Exact(name)) => below(name, suffix),
        (HostPattern::Wildcard(a), HostPattern::Wildcard(b)) => a == b || below(a, b) || below(b, a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_overlap_when_a_name_matches_both() {
        for (a, b, expected) in [
            ("a.example.com", "A.example.com", true),
            ("a.example.com", "b.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "aexample.com", false),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "*.example.org", false),
        ] {
            let (a, b) = (parse(a).unwrap(), parse(b).unwrap());
            assert_eq!((overlap(&a, &b), overlap(&b, &a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_hostname_is_refused() {
        for bad in ["", "*", "*.", "a..b", "-a.com", "a.*.com", "a_b.com", "a.com."] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
