//! How a session opens: the peers say who they are, and each host judges.

use std::time::Duration;

use super::{Phase, Session};
use crate::member::{MAX_RECORDS, PublicKey, SecretKey, TicketSecret};
use crate::sync::error::{Fault, Misbehaved, Refusal, SessionError};
use crate::sync::event::Event;
use crate::sync::frame::{Frame, HelloFrame, batches};
use crate::sync::handshake::{Local, Side};
use crate::sync::{HELLO_TIMEOUT, PROTOCOL, STALL_TIMEOUT};

impl Session {
    pub(super) fn handle_greeting(&mut self, frame: Frame) -> Result<(), SessionError> {
        let kind = frame.kind();
        match (frame, &mut self.phase) {
            (Frame::OtherVersion(version), _) => {
                let text = format!("you speak version {version}, this side speaks {}", PROTOCOL);
                Err(self.ended(Fault::new(Refusal::Version, text)))
            }
            (Frame::Hello(hello), Phase::Greeting) => {
                let ours = self.local.as_ref();
                if ours.is_some_and(|local| local.account != hello.hello.account) {
                    return Err(self.ended(Refusal::WrongAccount.into()));
                }
                if ours.is_some_and(|local| local.replica == hello.hello.replica) {
                    return Err(self.ended(Refusal::SameReplica.into()));
                }
                self.events.push_back(Event::Hello(hello.hello.clone()));
                self.phase = Phase::Judging(hello);
                Ok(())
            }
            (Frame::Join(join), Phase::Greeting) if self.side == Side::Responder => {
                if !join.signed(&self.binding) {
                    return Err(self.ended(Refusal::BadProof.into()));
                }
                self.events.push_back(Event::Join(join.join.clone()));
                self.phase = Phase::JudgingGuest(join);
                Ok(())
            }
            (Frame::Welcome { records, last }, Phase::Joining(so_far)) => {
                if so_far.len() + records.len() > MAX_RECORDS {
                    return Err(self.broken(Misbehaved::TooManyRecords));
                }
                so_far.extend(records);
                if last {
                    let records = std::mem::take(so_far);
                    self.events.push_back(Event::Welcome(records));
                    self.phase = Phase::Welcomed;
                }
                Ok(())
            }
            _ => Err(self.broken(Misbehaved::OutOfTurn { kind })),
        }
    }

    /// The initiator accepts the responder, whose key is `key` by the membership log.
    pub fn accept(&mut self, key: &PublicKey, now: Duration) -> Result<(), SessionError> {
        if self.side != Side::Initiator {
            return Err(SessionError::Misuse("a responder answers"));
        }
        self.judge(key, now)
    }

    /// The responder accepts the initiator, whose key is `peer` by the membership log, and says hello.
    pub fn answer(
        &mut self,
        peer: &PublicKey,
        local: Local,
        key: &SecretKey,
        now: Duration,
    ) -> Result<(), SessionError> {
        let Phase::Judging(hello) = &self.phase else {
            return Err(SessionError::Misuse("nobody said hello"));
        };
        if self.side != Side::Responder || local.account != hello.hello.account {
            return Err(SessionError::Misuse("an initiator accepts, and the account is the one asked for"));
        }
        if local.replica == hello.hello.replica {
            return Err(self.ended(Refusal::SameReplica.into()));
        }
        // A stranger learns nothing of us, so the proof comes before our hello.
        if !hello.proves(peer, Side::Initiator, &self.binding) {
            return Err(self.ended(Refusal::BadProof.into()));
        }
        self.say_hello(local, key);
        self.judge(peer, now)
    }

    fn judge(&mut self, key: &PublicKey, now: Duration) -> Result<(), SessionError> {
        let Phase::Judging(hello) = &self.phase else {
            return Err(SessionError::Misuse("nobody said hello"));
        };
        let other = match self.side {
            Side::Initiator => Side::Responder,
            Side::Responder => Side::Initiator,
        };
        if !hello.proves(key, other, &self.binding) {
            return Err(self.ended(Refusal::BadProof.into()));
        }
        let peer = hello.hello.clone();
        let Some(local) = &self.local else {
            return Err(SessionError::Misuse("this side has not said hello"));
        };
        self.phase = Phase::Open;
        self.quiet_since = now;
        let in_sync = peer.digest == local.state.digest;
        self.events.push_back(Event::Accepted { in_sync });
        if in_sync {
            self.outgoing.in_sync(&local.state);
        } else {
            self.have_due = true;
            self.changes_due = true;
            // Before the version vector: what answers that may be by members of whom the peer has not heard.
            if peer.members != local.members {
                self.records_due = true;
                self.outbox.control(&Frame::Records { names: local.records.clone() });
            }
            self.outgoing.told(&local.state.changes);
            self.outbox.control(&Frame::Have { changes: local.state.changes.clone() });
        }
        self.peer = Some(peer);
        self.resume()
    }

    /// Whether the guest that asks to join holds the ticket with `secret`.
    pub fn holds_ticket(&self, secret: &TicketSecret) -> bool {
        match &self.phase {
            Phase::JudgingGuest(join) => join.holds(secret, &self.binding),
            _ => false,
        }
    }

    /// Lets the guest in: it gets all membership records, its own admission among them, and says hello next.
    pub fn welcome(&mut self, records: Vec<Vec<u8>>, now: Duration) -> Result<(), SessionError> {
        if !matches!(self.phase, Phase::JudgingGuest(_)) {
            return Err(SessionError::Misuse("nobody asked to join"));
        }
        let mut lists = batches(records, MAX_RECORDS);
        let end = lists.pop().unwrap_or_default();
        for records in lists {
            self.outbox.control(&Frame::Welcome { records, last: false });
        }
        self.outbox.control(&Frame::Welcome { records: end, last: true });
        self.phase = Phase::Greeting;
        // The guest stores the log before it says hello.
        self.greeting_ends = now + STALL_TIMEOUT;
        self.quiet_since = now;
        self.resume()
    }

    /// The guest, now a member, says hello.
    pub fn hello(&mut self, local: Local, key: &SecretKey, now: Duration) -> Result<(), SessionError> {
        if self.phase != Phase::Welcomed {
            return Err(SessionError::Misuse("the hello is not due"));
        }
        self.say_hello(local, key);
        self.phase = Phase::Greeting;
        self.greeting_ends = now + HELLO_TIMEOUT;
        self.resume()
    }

    pub(super) fn say_hello(&mut self, local: Local, key: &SecretKey) {
        self.outbox.control(&Frame::Hello(HelloFrame::new(&local, key, self.side, &self.binding)));
        self.local = Some(local);
    }
}
