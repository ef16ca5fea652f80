//! What is answered to a command.

use std::fmt;

/// A reply of one line, with its enhanced status code (RFC 3463).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    detail: &'static str,
    text: String,
}

impl Reply {
    /// `detail` is subject and detail of the status; its class is the first digit of the code.
    pub(super) fn new(code: u16, detail: &'static str, text: impl Into<String>) -> Reply {
        Reply { code, detail, text: text.into() }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reply { code, detail, text } = self;
        write!(f, "{code} {class}.{detail} {text}", class = code / 100)
    }
}
