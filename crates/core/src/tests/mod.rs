//! What the tests of this crate share. It must not hold tests; those stand beside the code.

pub(crate) mod fixture;
