//! What a service manager and `serve` say to each other: signals one way, notices the other.

mod notify;
mod signals;

pub(crate) use notify::{Manager, Notify};
pub(crate) use signals::{Ending, Signals};
