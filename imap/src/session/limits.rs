//! What one session may cost its server.

use crate::grammar::Limits;

/// Limits of a session after login; before it, [`Limits::BEFORE_LOGIN`] holds for everybody. Pipelining needs none: while a
/// command runs nothing more is read, and what was sent meanwhile waits in the network's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// What is held of a command while it is read.
    pub command: Limits,
    /// Octets of a message that APPEND takes. More than a body may have is never taken.
    pub message: u64,
    /// Messages of one APPEND: all of them become one change of the document.
    pub messages: usize,
    /// Keys of a SEARCH, those inside of others included: each costs a look at every message of the mailbox.
    pub search_keys: usize,
}

impl Default for SessionLimits {
    /// Clients that know MULTIAPPEND send some hundred messages at once; who searches for a person names some dozen
    /// addresses.
    fn default() -> SessionLimits {
        SessionLimits {
            command: Limits::AFTER_LOGIN,
            message: postmerge::blob::MAX_BLOB,
            messages: 1000,
            search_keys: 1000,
        }
    }
}
