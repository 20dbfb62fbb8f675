//! Claims: who says that an address is theirs. It must not know what claims.

use crate::name::NsName;
use imbl::OrdMap;
use std::net::IpAddr;

/// Addresses and their claimants, newest claim last. Kubernetes gives an address to one owner at a time, but messages about the old and
/// the new one can cross.
#[derive(Clone, Default)]
pub(super) struct Claims(OrdMap<IpAddr, Claimants>);

/// There is hardly ever more than one, and there are hundreds of thousands of addresses.
#[derive(Clone)]
enum Claimants {
    One(NsName),
    Several(Box<[NsName]>),
}

impl Claimants {
    fn all(&self) -> &[NsName] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }

    /// None: nobody is left.
    fn of(mut all: Vec<NsName>) -> Option<Self> {
        match all.len() {
            0 => None,
            1 => all.pop().map(Self::One),
            _ => Some(Self::Several(all.into())),
        }
    }
}

impl Claims {
    pub(super) fn claim(&mut self, address: IpAddr, by: &NsName) {
        self.change(address, |claimants| {
            claimants.retain(|c| c != by);
            claimants.push(by.clone());
        });
    }

    pub(super) fn release(&mut self, address: IpAddr, by: &NsName) {
        self.change(address, |claimants| claimants.retain(|c| c != by));
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Vec<NsName>)) {
        let address = address.to_canonical();
        let mut claimants = self.of(address).to_vec();
        change(&mut claimants);
        match Claimants::of(claimants) {
            Some(claimants) => drop(self.0.insert(address, claimants)),
            None => drop(self.0.remove(&address)),
        }
    }

    /// Releases `before` and claims `after`, both by the same; an address in both keeps its claim.
    pub(super) fn replace(&mut self, before: &[IpAddr], after: &[IpAddr], by: &NsName) {
        before.iter().filter(|a| !after.contains(a)).for_each(|a| self.release(*a, by));
        after.iter().filter(|a| !before.contains(a)).for_each(|a| self.claim(*a, by));
    }

    /// All claimants, newest last.
    pub(super) fn of(&self, address: IpAddr) -> &[NsName] {
        self.0.get(&address.to_canonical()).map_or(&[], Claimants::all)
    }

    /// Whether nobody claims anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claimant that counts.
    pub(super) fn newest(&self, address: IpAddr) -> Option<&NsName> {
        self.of(address).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_claim_counts_until_it_is_released() {
        let (a, b) = (NsName::new("x", "a"), NsName::new("x", "b"));
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut claims = Claims::default();
        claims.replace(&[], &[one], &a);
        claims.replace(&[], &[one], &b);
        assert_eq!(claims.newest(one), Some(&b));
        claims.replace(&[one], &[one, two], &a);
        assert_eq!((claims.newest(one), claims.newest(two)), (Some(&b), Some(&a)));
        claims.release(one, &b);
        assert_eq!(claims.newest(one), Some(&a));
        claims.release(one, &a);
        assert_eq!(claims.newest(one), None);
    }

    #[test]
    fn an_ipv4_address_mapped_into_ipv6_is_the_same_address() {
        let a = NsName::new("x", "a");
        let mut claims = Claims::default();
        claims.claim("::ffff:10.0.0.1".parse().unwrap(), &a);
        assert_eq!(claims.newest([10, 0, 0, 1].into()), Some(&a));
    }
}
