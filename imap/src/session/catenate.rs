//! CATENATE (RFC 4469): a message put together from texts and from parts of messages that are there.

use std::io::Read;

use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::BodyReader;
use postmerge::uid::Shown;

use super::Session;
use super::append::AppendRun;
use super::done::Failed;
use super::fetch::plain;
use crate::grammar::{Code, MessageUrl};
use crate::message::{Partial, SectionText, Summary, filter_fields};
use crate::summaries::{summaries, unreadable};

/// Octets that are copied at a time.
const PIECE: usize = 64 * 1024;

impl Session {
    /// Adds what a URL means to the message, as FETCH would give it.
    pub(super) fn catenate(&self, url: &[u8], run: &mut AppendRun) -> Result<(), Failed> {
        let most = self.largest_message();
        let bad = || Failed::BadUrl(spelled(url));
        let parsed = MessageUrl::parse(url).ok_or_else(bad)?;
        let message = self.message_at(&parsed)?.ok_or_else(bad)?;
        let replica = self.replica()?;
        let Some(summary) = summaries(replica, &[message.blob])?.pop().flatten() else {
            // It is there when the client tries again.
            replica.want(message.blob)?;
            return Err(Failed::No(Some(Code::Unavailable), "a message has not arrived here yet".into()));
        };
        let summary = Summary::read(&summary).map_err(|_| bad())?;
        let mut text = text(replica, &message, &summary, &parsed)?.ok_or_else(bad)?;
        let body = run.body(replica);
        let mut piece = vec![0; PIECE];
        loop {
            let len = text.read(&mut piece).map_err(unreadable)?;
            if len == 0 {
                return Ok(());
            }
            if body.length().saturating_add(len as u64) > most {
                return Err(super::append::too_big(most));
            }
            body.push(&piece[..len]).map_err(ReplicaError::from)?;
        }
    }

    /// The message that a URL means; in the selected mailbox it must be one that the client was told of.
    fn message_at(&self, url: &MessageUrl) -> Result<Option<Shown>, Failed> {
        let replica = self.replica()?;
        let (snapshot, mailbox) = match &url.mailbox {
            Some(Ok(name)) if replica.snapshot()?.find(name)?.is_some() => replica.open_mailbox(name)?,
            Some(_) => return Ok(None),
            None => {
                let Ok(selected) = self.selected() else { return Ok(None) };
                let snapshot = replica.snapshot_of(selected.seen.mailbox)?;
                match snapshot.mailbox(selected.seen.mailbox)? {
                    Some(mailbox) if mailbox.seen() == selected.seen => (snapshot, mailbox),
                    _ => return Ok(None),
                }
            }
        };
        if url.uid_validity.is_some_and(|wanted| wanted != mailbox.uid_validity) {
            return Ok(None);
        }
        Ok(snapshot.message(mailbox.id, url.uid)?)
    }
}

/// The URL as a response can tell it: what would end the line, or the code, is as URLs write such octets.
fn spelled(url: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(url.len());
    for byte in url {
        match byte {
            b'!'..=b'~' if *byte != b']' => out.push(char::from(*byte)),
            byte => write!(out, "%{byte:02X}").expect("a string takes all"),
        }
    }
    out
}

/// The octets that are meant; nothing if the message has no such part.
fn text<'a>(
    replica: &'a Replica,
    message: &'a Shown,
    summary: &'a Summary<'a>,
    url: &MessageUrl,
) -> Result<Option<Box<dyn Read + 'a>>, Failed> {
    let open = |offset| -> std::io::Result<BodyReader> {
        replica.open_body(message.blob, offset).map_err(std::io::Error::other)
    };
    let section = plain(&url.section);
    let partial = url.partial.map(|partial| Partial { offset: partial.start, count: partial.length });
    let Some(span) = summary.section(&section) else { return Ok(None) };
    if let SectionText::Fields { names, not } = &section.text {
        let header = summary.read_header(span, open).map_err(unreadable)?;
        let fields = filter_fields(&header, names, *not);
        let fields = partial.map_or_else(|| fields.clone(), |partial| partial.cut(fields.clone()));
        return Ok(Some(Box::new(std::io::Cursor::new(fields))));
    }
    Ok(Some(Box::new(summary.open(span, partial, open).map_err(unreadable)?)))
}
