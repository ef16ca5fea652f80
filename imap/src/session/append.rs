//! APPEND and REPLACE (RFC 9051, section 6.3.12; RFC 3502, RFC 4469, RFC 8508): messages are streamed into the replica's bodies.

use postmerge::mailbox::{MailboxName, Uid};
use postmerge::replica::{NewMessage, Replica};
use postmerge::store::BodyWriter;

use super::done::{Done, Failed, Reply};
use super::mailboxes::named;
use super::store::keywords;
use super::{Kind, Running, Session};
use crate::grammar::{
    Append, AppendItem, Code, Item, MessageHead, MessageSet, NumberSet, Numbering, SequenceNumber, Tag,
};

/// An APPEND or REPLACE under way.
pub(super) struct AppendRun {
    pub(super) tag: Tag,
    to: MailboxName,
    replaces: Option<Uid>,
    head: Option<MessageHead>,
    body: Option<BodyWriter>,
    messages: Vec<NewMessage>,
}

impl Session {
    /// Begins, unless it cannot be done anyway: then the client is told before it sends its message, if it waits for that.
    pub(super) fn append(&mut self, append: Append) {
        let tag = append.tag.clone();
        match self.begin_append(append) {
            Ok(run) => self.running = Some(Running::Append(Box::new(run))),
            Err(failed) => self.refuse_append(&tag, failed),
        }
    }

    fn begin_append(&mut self, append: Append) -> Result<AppendRun, Failed> {
        let replica = self.replica()?;
        let to = named(append.mailbox)?;
        if replica.snapshot()?.find(&to)?.is_none() {
            return Err(Failed::No(Some(Code::TryCreate), "there is no such mailbox".into()));
        }
        let replaces =
            append.replaces.map(|(numbering, number)| self.replaced(numbering, number)).transpose()?;
        Ok(AppendRun { tag: append.tag, to, replaces, head: None, body: None, messages: Vec::new() })
    }

    fn replaced(&self, numbering: Numbering, number: SequenceNumber) -> Result<Uid, Failed> {
        if self.selected()?.read_only {
            return Err(Failed::No(Some(Code::ReadOnly), "the mailbox was selected to be read only".into()));
        }
        let set = MessageSet::Numbers(number.into());
        let found = self.target_uids(&set, numbering)?.pop();
        found.ok_or_else(|| Failed::No(Some(Code::NonExistent), "there is no such message".into()))
    }

    /// Takes a piece of the command.
    pub(super) fn append_item(&mut self, mut run: Box<AppendRun>, item: AppendItem) {
        let tag = run.tag.clone();
        match self.take_piece(&mut run, item) {
            Ok(None) => self.running = Some(Running::Append(run)),
            Ok(Some(done)) => self.finish(&tag, Kind::Other, Ok(done)),
            Err(failed) => self.refuse_append(&tag, failed),
        }
    }

    fn refuse_append(&mut self, tag: &Tag, failed: Failed) {
        self.reader.refuse();
        // A piece of it may have been read already.
        self.next = self.next.take().filter(|item| !matches!(item, Item::Append(_)));
        self.finish(tag, Kind::Other, Err(failed));
    }

    fn take_piece(&mut self, run: &mut AppendRun, item: AppendItem) -> Result<Option<Done>, Failed> {
        let most = self.settings.limits.messages;
        match item {
            AppendItem::Begin(_) => return Err(Failed::Bad("APPEND within APPEND")),
            AppendItem::Message(_) if run.messages.len() >= most => {
                let text = format!("one APPEND may bring {most} messages");
                return Err(Failed::No(Some(Code::Limit), text));
            }
            AppendItem::Message(head) => run.head = Some(head),
            AppendItem::Url(url) => self.catenate(&url, run)?,
            AppendItem::Text(head) => {
                let body = run.body(self.replica()?);
                if body.length().saturating_add(head.size) > self.largest_message() {
                    return Err(too_big(self.largest_message()));
                }
                if head.synchronizing {
                    self.out.continuation("go on");
                }
                self.reader.accept();
            }
            AppendItem::Chunk(bytes) => {
                if let Some(body) = &mut run.body {
                    body.push(&bytes).map_err(postmerge::replica::ReplicaError::from)?;
                }
            }
            AppendItem::MessageEnd => run.end_message()?,
            AppendItem::End => return self.end_append(run).map(Some),
        }
        Ok(None)
    }

    /// Octets of the largest message that is taken.
    pub(super) fn largest_message(&self) -> u64 {
        self.settings.limits.message.min(postmerge::blob::MAX_BLOB)
    }

    fn end_append(&mut self, run: &mut AppendRun) -> Result<Done, Failed> {
        let replica = self.replica()?.clone();
        let mut messages = std::mem::take(&mut run.messages);
        let old = run.replaces.and_then(|uid| Some((self.selected().ok()?.seen, uid, messages.pop()?)));
        let replaces = old.is_some();
        let added = match old {
            Some((seen, uid, message)) => replica.replace(seen, uid, &run.to, message),
            None => replica.append_all(&run.to, messages),
        };
        let added = match added {
            // It was there when the command began.
            Err(error) if is_missing(&error) => {
                return Ok(Done::no(Code::TryCreate, "the mailbox was deleted meanwhile"));
            }
            added => added?,
        };
        // The messages are there durably: nothing after this may look as if they were not.
        let uids =
            NumberSet::from_numbers(added.messages.iter().filter_map(|message| message.uid).map(Uid::value));
        let reply = added.into.map_or(Reply::None, |into| Reply::Appended(into.uid_validity, uids));
        if !replaces {
            return Ok(Done::ok_with(reply, "added"));
        }
        // RFC 8508, section 3.4: the new message is told first, then that the old one is gone.
        self.out.status(None, crate::grammar::Condition::Ok, reply.code(), "added");
        self.tell(false, false)?;
        self.tell(true, true)?;
        Ok(Done::ok("replaced"))
    }
}

pub(super) fn too_big(most: u64) -> Failed {
    Failed::No(Some(Code::TooBig), format!("a message may have {most} octets"))
}

impl AppendRun {
    /// The message that is being written, begun if nothing of it is there yet.
    pub(super) fn body(&mut self, replica: &Replica) -> &mut BodyWriter {
        self.body.get_or_insert_with(|| replica.body_writer())
    }

    fn end_message(&mut self) -> Result<(), Failed> {
        let (Some(head), Some(body)) = (self.head.take(), self.body.take()) else {
            return Err(Failed::Bad("a message without a text"));
        };
        if body.length() == 0 {
            return Err(Failed::No(Some(Code::Cannot), "an empty message".into()));
        }
        let (blob, _) = body.finish().map_err(postmerge::replica::ReplicaError::from)?;
        let internal_date = head.date.map(|date| date.seconds);
        self.messages.push(NewMessage { body: blob, keywords: keywords(&head.flags), internal_date });
        Ok(())
    }
}

fn is_missing(error: &postmerge::replica::ReplicaError) -> bool {
    use postmerge::replica::ReplicaError;
    use postmerge::uid::AccountError;
    matches!(error, ReplicaError::Account(AccountError::NoMailbox { .. }))
}
