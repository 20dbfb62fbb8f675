//! Connection: the guard that counts an open connection and leaves its line when it ends, however it ends. It must not know protocols.

use super::{Direction, Kind, Record, Telemetry};
use mesh_core::mesh::{AccessLog, MeshSettings};
use std::time::Instant;

/// An open connection (or tunnel). Dropping it ends it: the gauge falls, the totals and the access log get what `record` says.
#[derive(Debug)]
pub struct Connection {
    /// What is known so far; fill it in as things become known.
    pub record: Record,
    telemetry: Telemetry,
    level: AccessLog,
    started: Instant,
}

impl Telemetry {
    /// A connection was accepted.
    pub fn connection(&self, direction: Direction, settings: &MeshSettings) -> Connection {
        self.0.metrics.opened(direction);
        Connection {
            record: Record::new(Kind::Connection, direction),
            telemetry: self.clone(),
            level: settings.access_log,
            started: Instant::now(),
        }
    }
}

impl Connection {
    /// The connection turned out to carry HTTP requests, which leave lines of their own: it is counted, but writes none itself
    /// unless it fails.
    pub fn carries_requests(&mut self) {
        if self.level == AccessLog::All {
            self.level = AccessLog::Errors;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.telemetry.0.metrics.closed(self.record.direction);
        self.record.duration = self.started.elapsed();
        let wanted = self.record.is_wanted(self.level);
        self.telemetry.finish(&mut self.record, wanted);
    }
}
