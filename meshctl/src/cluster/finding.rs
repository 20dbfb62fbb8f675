//! Findings: what a check found, how bad it is, and what to do. It must not look at a cluster.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Fine,
    /// Works, but somebody should look.
    Doubtful,
    /// Does not work, or is not protected.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub level: Level,
    /// What is so.
    pub what: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

impl Finding {
    pub(super) fn fine(what: impl Into<String>) -> Self {
        Self { level: Level::Fine, what: what.into(), remedy: String::new() }
    }

    pub(super) fn doubtful(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Doubtful, what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn wrong(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Wrong, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Fine => "ok     ",
            Level::Doubtful => "doubt  ",
            Level::Wrong => "WRONG  ",
        };
        write!(f, "{mark}{}", self.what.trim_end())?;
        if !self.remedy.is_empty() {
            write!(f, "\n         -> {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Prints findings as they come and remembers the worst.
#[derive(Debug)]
pub(super) struct Findings {
    worst: Level,
}

impl Default for Findings {
    fn default() -> Self {
        Self { worst: Level::Fine }
    }
}

impl Findings {
    pub(super) fn tell(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.worst = self.worst.max(finding.level);
            println!("{finding}");
        }
    }

    pub(super) fn wrong(&self) -> bool {
        self.worst == Level::Wrong
    }
}
