//! Errors as the CNI specification writes them: a code, a message that names what is wrong, details. It must not print.

use serde_json::{Value, json};

/// Error codes of the CNI specification ("Error", codes 1 to 99 are reserved).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: "Incompatible CNI version".
    Version,
    /// 4: "Invalid necessary environment variables … The error message must contain the names of invalid variables".
    Environment,
    /// 5: "I/O failure".
    Io,
    /// 6: "Failed to decode content".
    Decode,
    /// 7: "Invalid network config".
    Config,
    /// 11: "Try again later".
    TryAgain,
    /// 50 (STATUS): "The plugin is not available (i.e. cannot service ADD requests)".
    Unavailable,
    /// 100: our own; the proxy refuses and would refuse again.
    Refused,
}

impl Code {
    /// The number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::TryAgain => 11,
            Self::Unavailable => 50,
            Self::Refused => 100,
        }
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniFault {
    /// What kind.
    pub code: Code,
    /// What is wrong, naming it.
    pub message: String,
    /// The causes behind it, if any.
    pub details: String,
}

impl CniFault {
    /// A fault without further causes.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// A fault with the chain of causes behind it.
    pub fn because(code: Code, message: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        Self { code, message: message.into(), details: chain(cause) }
    }

    /// What goes to stdout; `version` is that of the config, if it could be read.
    pub fn json(&self, version: Option<String>) -> Value {
        json!({
            "cniVersion": version.unwrap_or_else(|| crate::NEWEST.into()),
            "code": self.code.number(),
            "msg": self.message,
            "details": self.details,
        })
    }
}

/// An error with all its causes, for one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
