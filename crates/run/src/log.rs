//! The process's own log: JSON lines on stderr, filtered by directives that can be changed while running. It must not hold the access log.

use std::sync::Arc;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Longest set of directives that is taken: far more than anybody needs, and a bound on what a request can make us parse.
pub const DIRECTIVES_LONGEST: usize = 4096;

/// Reads and changes the level of the log.
#[derive(Clone)]
pub struct LogLevel {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
}

/// Why directives were not taken; the old ones stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// Not of the form `level` or `target=level`, separated by commas.
    #[error("log filter {directives:?}: {reason}")]
    Directives {
        /// What was given.
        directives: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Longer than [`DIRECTIVES_LONGEST`].
    #[error("the log filter has {0} bytes; at most {DIRECTIVES_LONGEST} are read")]
    Length(usize),
    /// The process has a log already.
    #[error("the log was started twice: {0}")]
    Twice(String),
    /// The log is gone.
    #[error("the log cannot be changed: {0}")]
    Gone(String),
}

/// Starts the log of the process with these directives (`info`, `info,mesh_proxy::outbound=debug`). Once for each process.
pub fn start(directives: &str) -> Result<LogLevel, BadFilter> {
    let (level, layer) = filtered(directives)?;
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(layer).with(lines);
    subscriber.try_init().map_err(|e| BadFilter::Twice(e.to_string()))?;
    Ok(level)
}

fn filtered(directives: &str) -> Result<(LogLevel, reload::Layer<EnvFilter, Registry>), BadFilter> {
    let (layer, handle) = reload::Layer::new(parse(directives)?);
    Ok((LogLevel { handle: Arc::new(handle) }, layer))
}

fn parse(directives: &str) -> Result<EnvFilter, BadFilter> {
    if directives.len() > DIRECTIVES_LONGEST {
        return Err(BadFilter::Length(directives.len()));
    }
    let bad = |reason: String| BadFilter::Directives { directives: directives.to_owned(), reason };
    if directives.trim().is_empty() {
        return Err(bad("is empty; `off` silences the log".into()));
    }
    EnvFilter::builder().parse(directives).map_err(|e| bad(e.to_string()))
}

impl LogLevel {
    /// The directives that hold now.
    pub fn current(&self) -> Result<String, BadFilter> {
        self.handle.with_current(ToString::to_string).map_err(|e| BadFilter::Gone(e.to_string()))
    }

    /// Replaces the directives; what is wrong changes nothing.
    pub fn set(&self, directives: &str) -> Result<(), BadFilter> {
        let filter = parse(directives)?;
        self.handle.reload(filter).map_err(|e| BadFilter::Gone(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_changes_while_running_and_nonsense_changes_nothing() {
        let (level, layer) = filtered("info").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            level.set("warn,mesh_run=debug").unwrap();
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            for (bad, says) in [("info,=x=", "filter"), ("", "is empty"), ("mesh=loud", "mesh=loud")] {
                let fault = level.set(bad).unwrap_err().to_string();
                assert!(fault.contains(says), "{fault}");
            }
            assert!(matches!(level.set(&"x".repeat(5000)), Err(BadFilter::Length(5000))));
            assert!(level.current().unwrap().contains("mesh_run=debug"));
        });
    }
}
