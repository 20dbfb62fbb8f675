//! What a Deployment wants next: which pods to make and which to end, one step at a time, so that ready pods never become fewer than asked for. Pure.

/// A pod of the Deployment, as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Pod name.
    pub name: String,
    /// Hash of the template that it was made from.
    pub template: u64,
    /// Whether it takes traffic.
    pub ready: bool,
    /// When it was made, as a running number.
    pub made: u64,
}

/// What to do now. Asked again after every change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// So many pods of the current template are missing.
    pub create: usize,
    /// These have to go.
    pub end: Vec<String>,
}

/// Decides. `members` are those that are not already ending.
///
/// A rolling replacement makes all pods of the new template at once (a surge of 100 %) and ends an old one for each new one that is ready:
/// `maxUnavailable: 0`.
pub fn step(replicas: usize, template: u64, members: &[Member]) -> Step {
    let (mut current, mut old): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|m| m.template == template);
    // Those that do not take traffic go first, and of equal ones the youngest.
    let order = |m: &&Member| (m.ready, std::cmp::Reverse(m.made));
    current.sort_by_key(order);
    old.sort_by_key(order);
    let surplus = current.len().saturating_sub(replicas);
    let ready = current.iter().skip(surplus).filter(|m| m.ready).count();
    let old_to_keep = replicas.saturating_sub(ready);
    let old_to_end = old.len().saturating_sub(old_to_keep);
    Step {
        create: replicas.saturating_sub(current.len()),
        end: current.iter().take(surplus).chain(old.iter().take(old_to_end)).map(|m| m.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, template: u64, ready: bool) -> Member {
        Member { name: name.into(), template, ready, made: u64::from(name.as_bytes()[0]) }
    }

    #[test]
    fn scales_up_and_down() {
        assert_eq!(step(2, 1, &[]), Step { create: 2, end: vec![] });
        let three = [member("a", 1, true), member("b", 1, false), member("c", 1, true)];
        assert_eq!(step(1, 1, &three).end, ["b", "c"], "the one that is not ready first, then the youngest");
    }

    #[test]
    fn an_old_pod_goes_only_when_a_new_one_is_ready() {
        let mut pods = vec![member("a", 1, true), member("b", 1, true)];
        assert_eq!(step(2, 2, &pods), Step { create: 2, end: vec![] });
        pods.extend([member("c", 2, false), member("d", 2, false)]);
        assert_eq!(step(2, 2, &pods), Step::default());
        pods[2].ready = true;
        assert_eq!(step(2, 2, &pods), Step { create: 0, end: vec!["b".into()] });
    }
}
