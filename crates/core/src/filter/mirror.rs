//! Mirror: which requests are mirrored. It must not send them.

use crate::mesh::Mirror;

/// Whether a request with this random number is mirrored.
pub fn mirrors(mirror: &Mirror, random: u64) -> bool {
    let point = (u128::from(random) * u128::from(mirror.denominator)) >> 64;
    point < u128::from(mirror.numerator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::BackendTarget;

    #[test]
    fn the_share_of_numbers_is_the_share_of_requests() {
        for (numerator, denominator, want) in [(0, 100, 0), (100, 100, 1000), (20, 100, 200), (1, 3, 333), (5, 1, 1000)]
        {
            let mirror = Mirror { target: BackendTarget::Broken, numerator, denominator };
            let mirrored = (0..1000u64).filter(|i| mirrors(&mirror, i * (u64::MAX / 1000) + u64::MAX / 2000)).count();
            assert_eq!(mirrored, want, "{numerator}/{denominator}");
        }
    }
}
