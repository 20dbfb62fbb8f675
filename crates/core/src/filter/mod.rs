//! Filters: what they do to request and response heads. Pure edits of header maps and URIs. It must not send, mirror or sleep.

mod cors;
mod header;
mod mirror;
mod path;
mod redirect;
mod rewrite;

pub use cors::{CorsAnswer, cors};
pub use header::edit_headers;
pub use mirror::mirrors;
pub use redirect::{Arrival, redirect};
pub use rewrite::rewrite_path;
