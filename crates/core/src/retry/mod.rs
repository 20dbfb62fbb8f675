//! Retry: what may be repeated, after which pause, and within which budget. It must not send.

mod backoff;
mod budget;
mod classify;

pub use backoff::{BACKOFF_BASE, BACKOFF_CAP, backoff};
pub use budget::{Budget, BudgetState};
pub use classify::{Anew, Outcome, REACHES, may_begin_anew, may_repeat};
