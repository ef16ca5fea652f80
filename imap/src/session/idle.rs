//! IDLE (RFC 2177): what happens is told as it happens.

use super::done::{Done, Failed};
use super::selected::Lost;
use super::{Running, Session, State};
use crate::grammar::Tag;

impl Session {
    pub(super) fn idle(&mut self, tag: Tag) -> Done {
        self.out.continuation("idling");
        self.reader.expect_line();
        self.stale = true;
        self.running = Some(Running::Idle(tag));
        Done::Runs
    }

    /// One round of IDLE: a line ends it, a commit is told.
    pub(super) fn idle_on(&mut self, tag: Tag, line: Option<&[u8]>) -> Result<Done, Failed> {
        match line {
            Some(line) if line.eq_ignore_ascii_case(b"DONE") => return Ok(Done::ok("no longer idle")),
            Some(_) => return Ok(Done::bad("DONE ends IDLE")),
            None => {}
        }
        self.stale = false;
        self.tell(true, false)?;
        self.running = Some(Running::Idle(tag));
        Ok(Done::Runs)
    }

    /// Tells a client that has a mailbox selected what happened in it.
    pub(super) fn tell(&mut self, may_expunge: bool, with_uid: bool) -> Result<(), Lost> {
        let State::Selected(account, selected) = &mut self.state else { return Ok(()) };
        let snapshot = account.replica().snapshot_of(selected.seen.mailbox)?;
        selected.refresh(&snapshot, self.enabled, may_expunge, with_uid, &mut self.out)
    }
}
