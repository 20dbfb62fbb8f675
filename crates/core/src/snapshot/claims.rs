//! Claims: who says that an address is theirs. It must not know what claims.

use crate::{
    name::NsName,
    records::{Record, Records},
};
use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv6Addr},
};

/// Addresses and their claimants, newest claim last. Kubernetes gives an address to one owner at a time, but messages about the old and
/// the new one can cross.
#[derive(Clone, Default)]
pub(super) struct Claims(Records<Claim>);

#[derive(Clone)]
struct Claim {
    /// An IPv4 address as it is mapped into IPv6: the same, however it is written.
    address: Ipv6Addr,
    claimants: Claimants,
}

impl Record for Claim {
    type Key = Ipv6Addr;

    fn key(&self) -> Ipv6Addr {
        self.address
    }

    fn compare(&self, key: &Ipv6Addr) -> Ordering {
        self.address.cmp(key)
    }
}

/// There is hardly ever more than one, and there are hundreds of thousands of addresses.
#[derive(Clone)]
enum Claimants {
    One(NsName),
    /// Behind one word, so that this takes no more room than one name.
    Several(Box<Names>),
}

type Names = Vec<NsName>;

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
            _ => Some(Self::Several(Box::new(all))),
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
        let mut claimants = self.of(address).to_vec();
        change(&mut claimants);
        let address = key(address);
        match Claimants::of(claimants) {
            Some(claimants) => drop(self.0.insert(Claim { address, claimants })),
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
        self.0.get(&key(address)).map_or(&[], |claim| claim.claimants.all())
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

fn key(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
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
    fn a_claim_takes_two_words_for_the_address_and_two_for_who_claims_it() {
        assert_eq!(size_of::<Claim>(), 32);
    }

    #[test]
    fn an_ipv4_address_mapped_into_ipv6_is_the_same_address() {
        let a = NsName::new("x", "a");
        let mut claims = Claims::default();
        claims.claim("::ffff:10.0.0.1".parse().unwrap(), &a);
        assert_eq!(claims.newest([10, 0, 0, 1].into()), Some(&a));
    }
}
