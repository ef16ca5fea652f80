//! Which account a conversation is about, for a port that serves several: the first frame says it.

use super::MAX_STRANGER_FRAME;
use super::assembler::Assembler;
use super::frame::Frame;
use crate::mailbox::AccountId;

/// What the start of a conversation tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// More must be read, at most a frame of [`MAX_STRANGER_FRAME`].
    Incomplete,
    /// The conversation is about this account. Nothing is proven by that.
    Account(AccountId),
    /// It names none, and is to be refused.
    Nothing,
}

/// Reads the start of what an initiator says. The bytes must still be given to the session.
pub fn naming(mut start: &[u8]) -> Naming {
    match Assembler::default().next(&mut start, MAX_STRANGER_FRAME) {
        Ok(None) => Naming::Incomplete,
        Ok(Some(Frame::Hello(hello))) => Naming::Account(hello.hello.account),
        Ok(Some(Frame::Join(join))) => Naming::Account(join.join.account),
        Ok(Some(_)) | Err(_) => Naming::Nothing,
    }
}
