//! Request: the guard that travels with a request and its response body and leaves line, counts and span when the last byte is through. It must not know protocols.

use super::{Direction, Kind, Record, RequestSpan, Telemetry};
use mesh_core::mesh::AccessLog;
use std::time::Instant;

/// A request in progress. Dropping it ends it, also when the client went away in the middle.
#[derive(Debug)]
pub struct RequestGuard {
    /// What is known so far.
    pub record: Record,
    /// Its span, if it is sampled.
    pub span: Option<Box<RequestSpan>>,
    telemetry: Telemetry,
    level: AccessLog,
    started: Instant,
}

impl Telemetry {
    /// A request head arrived at `started`.
    pub fn request(&self, direction: Direction, level: AccessLog, started: Instant) -> Box<RequestGuard> {
        Box::new(RequestGuard {
            record: Record::new(Kind::Request, direction),
            span: None,
            telemetry: self.clone(),
            level,
            started,
        })
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.record.duration = self.started.elapsed();
        if let Some(span) = self.span.take() {
            span.finish(&self.record);
        }
        let wanted = self.record.is_wanted(self.level);
        self.telemetry.finish(&mut self.record, wanted);
    }
}
