//! FETCH (RFC 9051, section 6.4.5): messages are read in batches, texts in pieces, and a step ends when enough waits for
//! the client.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::time::{Duration, Instant};

use postmerge::blob::BlobId;
use postmerge::mailbox::{Keyword, MailboxId, Uid};
use postmerge::replica::{Replica, ReplicaError, Snapshot};
use postmerge::store::BodyReader;
use postmerge::uid::{KeywordChange, Shown};

use super::done::{Done, Failed};
use super::resync::{HIGHEST_UID, hidden, uncounted};
use super::selected::Selected;
use super::{OUTPUT, Running, Session, State};
use crate::grammar::{
    self, Code, Fetch, FetchItem, FetchRow, MessageSet, NumberSet, Numbering, Responses, Tag,
};
use crate::message::{self, Section, SectionText, Summary, TransferError, filter_fields};
use crate::summaries::{BATCH, summaries, unreadable};

/// How long a client waits for a body that a peer has. Clients give up after 30 s or more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A FETCH under way.
pub(super) struct FetchRun {
    tag: Tag,
    pub(super) numbering: Numbering,
    items: Vec<FetchItem>,
    /// Sequence numbers and UIDs of messages still to be read, ascending.
    targets: VecDeque<(u32, u32)>,
    /// Messages that were read, with their summaries if those are needed.
    ready: VecDeque<Ready>,
    current: Option<Current>,
    /// A body that a peer is asked for, and until when.
    awaited: Option<(BlobId, Instant)>,
    /// Whether what is told becomes `\Seen`.
    marks: bool,
    /// Messages whose texts were told.
    told: Vec<Uid>,
    /// Whether some messages were expunged before they could be told.
    gone: bool,
    /// Bodies that nobody gave in time.
    unavailable: usize,
    /// Whether a body was awaited in vain: the ones after it are not waited for.
    impatient: bool,
}

struct Ready {
    seq: u32,
    message: Shown,
    summary: Option<Vec<u8>>,
}

/// A message some of whose items are written.
struct Current {
    ready: Ready,
    /// How many items are written.
    written: usize,
    text: Text,
}

impl FetchRun {
    /// Whether a step can do something; otherwise a body is awaited.
    pub(super) fn has_work(&self, stale: bool) -> bool {
        self.awaited.is_none() || stale
    }

    /// When to give up waiting.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.awaited.map(|(_, deadline)| deadline)
    }

    /// Goes on without the body that is awaited.
    pub(super) fn give_up(&mut self) {
        if self.awaited.take().is_some() {
            self.impatient = true;
            self.skip();
        }
    }

    /// Leaves out a message whose body is not here.
    fn skip(&mut self) {
        self.ready.pop_front();
        self.unavailable += 1;
    }

    fn needs_summary(&self) -> bool {
        let from_index = |item: &FetchItem| {
            use FetchItem::{EmailId, Flags, InternalDate, ModSeq, SaveDate, Uid};
            matches!(item, EmailId | Flags | InternalDate | ModSeq | SaveDate | Uid)
        };
        !self.items.iter().all(from_index)
    }
}

impl Session {
    pub(super) fn fetch(&mut self, tag: Tag, fetch: Fetch) -> Result<Done, Failed> {
        self.enabled.condstore |= fetch.changed_since.is_some() || fetch.items.contains(&FetchItem::ModSeq);
        if fetch.vanished
            && !(self.enabled.qresync && fetch.numbering == Numbering::Uid && fetch.changed_since.is_some())
        {
            return Ok(Done::bad("VANISHED needs QRESYNC, UID FETCH and CHANGEDSINCE"));
        }
        let mut targets = self.targets(&fetch.messages, fetch.numbering)?;
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        let snapshot = replica.snapshot_of(selected.seen.mailbox)?;
        if let Some(since) = fetch.changed_since {
            let changes = snapshot.uids_changed_since(selected.seen.mailbox, since)?;
            if fetch.vanished {
                let vanished = match &changes {
                    Some(changes) => NumberSet::from_numbers(changes.vanished.iter().map(|uid| uid.value())),
                    None => hidden(&snapshot, selected.seen.mailbox)?,
                };
                let asked = match &fetch.messages {
                    MessageSet::Numbers(set) => set.resolve(HIGHEST_UID),
                    MessageSet::Saved => selected.saved.clone(),
                };
                let vanished = uncounted(&vanished.intersection(&asked), &selected.view);
                self.out.vanished(true, &vanished);
            }
            if let Some(changes) = changes {
                let changed = NumberSet::from_numbers(changes.shown.iter().map(|uid| uid.value()));
                targets.retain(|(_, uid)| changed.contains(*uid));
            }
        }
        drop(snapshot);
        if let Some(partial) = fetch.partial {
            targets = targets[partial.places(targets.len())].to_vec();
        }
        let marks = fetch.items.iter().any(FetchItem::sets_seen) && !selected.read_only;
        let mut items = fetch.items;
        if fetch.changed_since.is_some() && !items.contains(&FetchItem::ModSeq) {
            items.push(FetchItem::ModSeq);
        }
        if fetch.numbering == Numbering::Uid && !items.contains(&FetchItem::Uid) && !self.enabled.uid_only {
            items.insert(0, FetchItem::Uid);
        }
        self.running = Some(Running::Fetch(Box::new(FetchRun {
            tag,
            numbering: fetch.numbering,
            items,
            targets: targets.into(),
            ready: VecDeque::new(),
            current: None,
            awaited: None,
            marks,
            told: Vec::new(),
            gone: false,
            unavailable: 0,
            impatient: false,
        })));
        Ok(Done::Runs)
    }

    /// Writes until enough waits for the client, a body has to be awaited, or all is told.
    pub(super) fn fetch_on(&mut self, mut run: Box<FetchRun>, now: Instant) -> (Tag, Result<Done, Failed>) {
        let tag = run.tag.clone();
        let done = self.write_fetch(&mut run, now);
        if matches!(done, Ok(Done::Runs)) {
            self.running = Some(Running::Fetch(run));
        }
        (tag, done)
    }

    fn write_fetch(&mut self, run: &mut FetchRun, now: Instant) -> Result<Done, Failed> {
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        // Where the response that is being written began, if that is not with the client yet.
        let mut begun = None;
        self.out.reserve(OUTPUT.saturating_sub(self.out.len()));
        while self.out.len() < OUTPUT {
            if let Some(current) = run.current.take() {
                match put_items(replica, &run.items, current, &mut self.out) {
                    Ok(current) => run.current = current,
                    Err(failed) => return Err(unwrite(failed, begun, &mut self.out)),
                }
                continue;
            }
            let Some(next) = run.ready.front() else {
                if run.targets.is_empty() {
                    run.mark_seen(replica, selected)?;
                    return Ok(run.done());
                }
                run.read_on(replica, selected.seen.mailbox)?;
                selected.name_keywords(run.ready.iter().map(|ready| &ready.message), &mut self.out);
                continue;
            };
            if run.needs_summary() && next.summary.is_none() {
                let blob = next.message.blob;
                let Some(summary) = summaries(replica, &[blob])?.pop().flatten() else {
                    // What is here and cannot be read will not come either.
                    if run.impatient || replica.has_body(blob)? {
                        run.skip();
                        continue;
                    }
                    let first_look = run.awaited.is_none_or(|(awaited, _)| awaited != blob);
                    if first_look {
                        run.awaited = Some((blob, now + PATIENCE));
                    }
                    // One that came since the look above was announced already; it is looked for once more.
                    self.stale = first_look && replica.want(blob)?;
                    return Ok(Done::Runs);
                };
                run.ready[0].summary = Some(summary);
            }
            run.awaited = None;
            if let Some(ready) = run.ready.pop_front() {
                begun = Some(self.out.len());
                if run.marks {
                    run.told.push(ready.message.uid);
                }
                match self.enabled.uid_only {
                    true => self.out.uid_fetch(ready.message.uid).pause(),
                    false => self.out.fetch(ready.seq).pause(),
                }
                run.current = Some(Current { ready, written: 0, text: None });
            }
        }
        Ok(Done::Runs)
    }
}

/// Takes back a response that cannot be completed. One that is with the client in part cannot be taken back.
fn unwrite(failed: Failed, begun: Option<usize>, out: &mut Responses) -> Failed {
    match (begun, failed) {
        (Some(begun), failed) => {
            out.truncate(begun);
            match failed {
                Failed::HalfWritten(error) => Failed::Replica(error),
                failed => failed,
            }
        }
        (None, Failed::Replica(error)) => Failed::HalfWritten(error),
        (None, Failed::No(..)) => Failed::HalfWritten(unreadable(std::io::ErrorKind::InvalidData.into())),
        (None, failed) => failed,
    }
}

impl FetchRun {
    fn done(&self) -> Done {
        // RFC 9051, section 6.4.9: a UID that means nothing is no error.
        match (self.unavailable, self.gone && self.numbering == Numbering::Sequence) {
            (0, false) => Done::ok("these are the messages"),
            (0, true) => Done::no(Code::ExpungeIssued, "some of the messages are expunged"),
            (count, _) => Done::no(
                Code::Unavailable,
                format!("{count} of the messages have not arrived here yet, or cannot be read"),
            ),
        }
    }
}

impl FetchRun {
    /// Marks what was told as `\Seen`, in one change; a text that could not be told stays unseen.
    fn mark_seen(&mut self, replica: &Replica, selected: &Selected) -> Result<(), Failed> {
        let told = std::mem::take(&mut self.told);
        if !told.is_empty() {
            let change = KeywordChange::Edit { set: [Keyword::seen()].into(), clear: BTreeSet::new() };
            replica.store_keywords(selected.seen, &told, &change, None)?;
        }
        Ok(())
    }

    /// Reads the next messages.
    fn read_on(&mut self, replica: &Replica, mailbox: MailboxId) -> Result<(), Failed> {
        let wanted: Vec<(u32, u32)> = self.targets.drain(..self.targets.len().min(BATCH)).collect();
        let found = read(&replica.snapshot_of(mailbox)?, mailbox, &wanted)?;
        self.gone |= found.len() < wanted.len();
        let mut ready: Vec<Ready> =
            found.into_iter().map(|(seq, message)| Ready { seq, message, summary: None }).collect();
        if self.needs_summary() {
            let blobs: Vec<BlobId> = ready.iter().map(|ready| ready.message.blob).collect();
            for (ready, summary) in ready.iter_mut().zip(summaries(replica, &blobs)?) {
                if summary.is_none() {
                    // Asked for now, so that those after the first have come when it is their turn.
                    replica.want(ready.message.blob)?;
                }
                ready.summary = summary;
            }
        }
        self.ready.extend(ready);
        Ok(())
    }
}

/// Messages by sequence number and UID, ascending, with one pass over the index where they stand close together. Expunged
/// ones are left out.
pub(super) fn read(
    snapshot: &Snapshot,
    mailbox: MailboxId,
    wanted: &[(u32, u32)],
) -> Result<Vec<(u32, Shown)>, Failed> {
    let (Some((_, first)), Some((_, last))) = (wanted.first(), wanted.last()) else { return Ok(Vec::new()) };
    let span = (last - first) as usize + 1;
    let mut found: Vec<Shown> = Vec::with_capacity(wanted.len());
    if span <= wanted.len() * 4 {
        if let Some(from) = Uid::new(*first) {
            found = snapshot.messages(mailbox, from, span)?;
        }
    } else {
        for uid in wanted.iter().filter_map(|(_, uid)| Uid::new(*uid)) {
            found.extend(snapshot.message(mailbox, uid)?);
        }
    }
    let mut found = found.into_iter().peekable();
    let mut read = Vec::with_capacity(wanted.len());
    for (seq, uid) in wanted {
        while found.next_if(|message| message.uid.value() < *uid).is_some() {}
        read.extend(found.next_if(|message| message.uid.value() == *uid).map(|message| (*seq, message)));
    }
    Ok(read)
}

/// Writes items of a message; gives it back if a text of it goes on.
fn put_items(
    replica: &Replica,
    items: &[FetchItem],
    mut current: Current,
    out: &mut Responses,
) -> Result<Option<Current>, Failed> {
    loop {
        if let Some(text) = &mut current.text {
            let room = OUTPUT.saturating_sub(out.len());
            if room == 0 {
                return Ok(Some(current));
            }
            let mut row = out.resume_fetch(false);
            let appended = row.octets_from(|out| text.append(out, room));
            if appended.map_err(|error| Failed::HalfWritten(unreadable(error)))? == 0 {
                current.text = None;
            }
            continue;
        }
        if out.len() >= OUTPUT && current.written > 0 && current.written < items.len() {
            return Ok(Some(current));
        }
        let mut row = out.resume_fetch(current.written == 0);
        let Some(item) = items.get(current.written) else {
            row.end();
            return Ok(None);
        };
        current.written += 1;
        let summary = current.ready.summary.as_deref().and_then(|bytes| Summary::read(bytes).ok());
        let text = Texts { replica, message: &current.ready.message, summary };
        current.text = text.put(item, &mut row)?;
    }
}

/// A message, and what its texts are read from.
struct Texts<'a> {
    replica: &'a Replica,
    message: &'a Shown,
    /// Nothing if no item needs it.
    summary: Option<Summary<'a>>,
}

/// What follows of an item whose start is written.
type Text = Option<Box<Rest>>;

enum Rest {
    Text(message::Text<BodyReader>),
    Decoded(std::io::Take<Decoded>),
}

impl Rest {
    /// Appends about `room` bytes, or less; none only at the end.
    fn append(&mut self, out: &mut Vec<u8>, room: usize) -> std::io::Result<usize> {
        match self {
            Rest::Text(text) => text.append(out, room),
            Rest::Decoded(decoded) => decoded.take(room as u64).read_to_end(out),
        }
    }
}

impl Texts<'_> {
    /// Writes one item, or its start and gives the text that follows.
    fn put(&self, item: &FetchItem, row: &mut FetchRow<'_>) -> Result<Text, Failed> {
        let message = self.message;
        match item {
            FetchItem::Flags => row.flags(&message.keywords),
            FetchItem::InternalDate => row.internal_date(message.internal_date),
            FetchItem::Uid => row.uid(message.uid),
            FetchItem::ModSeq => row.mod_seq(message.modseq),
            FetchItem::EmailId => row.email_id(&email_id(message)),
            FetchItem::SaveDate => row.save_date(Some(message.saved)),
            _ => {
                let Some(summary) = &self.summary else { return Err(Failed::Bad("there is no summary")) };
                return self.put_text(item, summary, row);
            }
        }
        Ok(None)
    }

    fn put_text(
        &self,
        item: &FetchItem,
        summary: &Summary<'_>,
        row: &mut FetchRow<'_>,
    ) -> Result<Text, Failed> {
        match item {
            FetchItem::Size => row.size(summary.size()),
            FetchItem::Envelope => row.item("ENVELOPE", |out| summary.put_envelope(out)),
            FetchItem::Body => row.item("BODY", |out| summary.put_body(out)),
            FetchItem::BodyStructure => row.item("BODYSTRUCTURE", |out| summary.put_body_structure(out)),
            FetchItem::ThreadId => row.thread_id(Some(&thread_id(self.message, summary))),
            FetchItem::Preview { .. } => row.preview(Some(summary.preview())),
            FetchItem::Rfc822 => return self.section(summary, Asked::Named("RFC822", SectionText::All), row),
            FetchItem::Rfc822Header => {
                return self.section(summary, Asked::Named("RFC822.HEADER", SectionText::Header), row);
            }
            FetchItem::Rfc822Text => {
                return self.section(summary, Asked::Named("RFC822.TEXT", SectionText::Text), row);
            }
            FetchItem::Section { section, partial, .. } => {
                return self.section(summary, Asked::Section(section, *partial), row);
            }
            FetchItem::Binary { part, partial, .. } => return self.binary(summary, part, *partial, row),
            FetchItem::BinarySize { part } => {
                let size = self.decoded(summary, part)?.map(message::Decoded::count).transpose();
                row.binary_size(part, size.map_err(transfer)?.unwrap_or(0));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Starts the literal of a section.
    fn section(
        &self,
        summary: &Summary<'_>,
        asked: Asked<'_>,
        row: &mut FetchRow<'_>,
    ) -> Result<Text, Failed> {
        let (section, partial) = match &asked {
            Asked::Named(_, text) => (Section { part: Vec::new(), text: text.clone() }, None),
            Asked::Section(section, partial) => (plain(section), *partial),
        };
        let cut = partial.map(|partial| message::Partial { offset: partial.start, count: partial.length });
        let mut begin = |size: Option<u64>| match (&asked, size) {
            (Asked::Named(name, _), size) => row.literal(name, size.unwrap_or(0)),
            (Asked::Section(section, partial), size) => {
                row.section(section, partial.map(|partial| partial.start), size);
            }
        };
        let Some(span) = summary.section(&section) else {
            begin(None);
            return Ok(None);
        };
        let open = |offset| self.open(offset);
        if let SectionText::Fields { names, not } = &section.text {
            let known = if *not || !section.part.is_empty() { None } else { summary.header_fields(names) };
            let fields = match known {
                Some(fields) => fields,
                None => filter_fields(&summary.read_header(span, open).map_err(unreadable)?, names, *not),
            };
            let fields = cut.map_or_else(|| fields.clone(), |cut| cut.cut(fields.clone()));
            begin(Some(fields.len() as u64));
            row.octets(&fields);
            return Ok(None);
        }
        let text = summary.open(span, cut, open).map_err(unreadable)?;
        begin(Some(text.len()));
        Ok(Some(Box::new(Rest::Text(text))))
    }

    fn binary(
        &self,
        summary: &Summary<'_>,
        part: &[u32],
        partial: Option<grammar::Partial>,
        row: &mut FetchRow<'_>,
    ) -> Result<Text, Failed> {
        let origin = partial.map(|partial| partial.start);
        // The length comes first, so what is decoded is read twice rather than held.
        let size = self.decoded(summary, part)?.map(message::Decoded::count).transpose().map_err(transfer)?;
        let (Some(size), Some(mut text)) = (size, self.decoded(summary, part)?) else {
            row.binary(part, origin, None, true);
            return Ok(None);
        };
        let start = origin.unwrap_or(0).min(size);
        let len = partial.map_or(size, |partial| partial.length).min(size - start);
        std::io::copy(&mut (&mut text).take(start), &mut std::io::sink()).map_err(unreadable)?;
        row.binary(part, origin, Some(len), true);
        Ok(Some(Box::new(Rest::Decoded(text.take(len)))))
    }

    fn decoded(&self, summary: &Summary<'_>, part: &[u32]) -> Result<Option<Decoded>, Failed> {
        summary.decoded(part, |offset| self.open(offset)).map_err(transfer)
    }

    fn open(&self, offset: u64) -> std::io::Result<BodyReader> {
        self.replica.open_body(self.message.blob, offset).map_err(std::io::Error::other)
    }
}

type Decoded = message::Decoded<message::Text<BodyReader>>;

/// How a section was asked for.
enum Asked<'a> {
    /// By a name of its own.
    Named(&'static str, SectionText),
    /// As `BODY[...]<...>`.
    Section(&'a grammar::Section, Option<grammar::Partial>),
}

/// EMAILID (RFC 8474): the body's name, so copies of a message have one.
pub(super) fn email_id(message: &Shown) -> String {
    format!("M{}", message.blob)
}

/// THREADID (RFC 8474).
pub(super) fn thread_id(message: &Shown, summary: &Summary<'_>) -> String {
    summary.thread_id().unwrap_or_else(|| format!("B{}", message.blob))
}

fn transfer(error: TransferError) -> Failed {
    match error {
        TransferError::UnknownEncoding => {
            Failed::No(Some(Code::UnknownCte), "the part's transfer encoding is not known".into())
        }
        TransferError::Io(source) => Failed::Replica(ReplicaError::Source { source }),
    }
}

pub(super) fn plain(section: &grammar::Section) -> Section {
    let text = match &section.text {
        None => SectionText::All,
        Some(grammar::SectionText::Header) => SectionText::Header,
        Some(grammar::SectionText::Text) => SectionText::Text,
        Some(grammar::SectionText::Mime) => SectionText::Mime,
        Some(grammar::SectionText::HeaderFields { not, names }) => {
            SectionText::Fields { names: names.to_vec(), not: *not }
        }
    };
    Section { part: section.part.clone(), text }
}
