//! Responses to bytes.

use postmerge::mailbox::{Keyword, MailboxId, MailboxName, ModSeq, SpecialUse, Uid, UidValidity};

use super::code::Code;
use super::command::Numbering;
use super::encode::{
    put_mailbox, put_nstring, put_number, put_quoted_ascii, put_spaced, put_string, put_text,
};
use super::error::{CommandError, Problem};
use super::fetch::PartialRange;
use super::fetch_row::FetchRow;
use super::names::{NameEncoding, Tag};
use super::session::Extension;
use super::set::{NumberSet, put_runs};

/// Writes responses one after the other into a buffer.
#[derive(Debug, Default)]
pub struct Responses {
    pub(super) out: Vec<u8>,
    names: NameEncoding,
}

/// How a status response begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It was done, or it is good to know.
    Ok,
    /// It was not done, or it is a warning.
    No,
    /// The command was wrong.
    Bad,
    /// The connection ends; never with a tag.
    Bye,
    /// The greeting of a client that needs no login; never with a tag.
    PreAuth,
}

/// One line of LIST or LSUB.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// What is true of the mailbox.
    pub attributes: &'a [Attribute],
    /// Its name.
    pub mailbox: &'a MailboxName,
    /// A subscribed mailbox is below it that does not match (`RECURSIVEMATCH`).
    pub child_subscribed: bool,
    /// The name that it had (RFC 9051, section 6.3.9.7).
    pub old_name: Option<&'a MailboxName>,
}

/// What LIST says of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// `\NonExistent`: only a name. Implies that it cannot be selected.
    NonExistent,
    /// `\Noselect`: there for the mailboxes below it.
    NoSelect,
    /// `\Noinferiors`: none can be below it.
    NoInferiors,
    /// `\HasChildren`
    HasChildren,
    /// `\HasNoChildren`
    HasNoChildren,
    /// `\Subscribed`
    Subscribed,
    /// `\Sent` and so on.
    Use(SpecialUse),
}

/// One thing that STATUS tells, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`StatusItem` says what they are")]
pub enum StatusValue {
    Messages(u32),
    Recent(u32),
    UidNext(Uid),
    UidValidity(UidValidity),
    Unseen(u32),
    Deleted(u32),
    Size(u64),
    HighestModSeq(ModSeq),
    MailboxId(MailboxId),
}

/// The answer to SEARCH in its extended form, and to SORT with RETURN.
#[derive(Debug, Clone, Copy)]
pub struct ESearch<'a> {
    /// The tag of the command.
    pub tag: &'a Tag,
    /// What the numbers are.
    pub numbering: Numbering,
    /// The lowest, or for SORT the first.
    pub min: Option<u32>,
    /// The highest, or for SORT the last.
    pub max: Option<u32>,
    /// All of them; nothing is written if there are none.
    pub all: Option<Found<'a>>,
    /// How many there are.
    pub count: Option<u32>,
    /// Some of them, and which were asked for.
    pub partial: Option<(PartialRange, Found<'a>)>,
    /// The highest mod-sequence of what is told, if the command asked by mod-sequence.
    pub mod_seq: Option<ModSeq>,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// By SEARCH.
    Set(&'a NumberSet),
    /// By SORT, in its order.
    Sorted(&'a [u32]),
}

impl Responses {
    /// An empty buffer at the start of a session.
    pub fn new() -> Responses {
        Responses::default()
    }

    /// Sets how mailbox names are spelled from now on. With UTF-8 names, strings and texts may be UTF-8 too.
    pub fn set_names(&mut self, names: NameEncoding) {
        self.names = names;
    }

    /// Whether strings and texts may be UTF-8.
    pub fn utf8(&self) -> bool {
        self.names == NameEncoding::Utf8
    }

    /// How many octets wait to be taken.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what was written.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Makes room for so many octets at once, where a buffer that grows would be copied several times.
    pub fn reserve(&mut self, octets: usize) {
        self.out.reserve(octets);
    }

    /// Takes back what was written after the first `len` octets.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// A status response: to the command of `tag`, or to none.
    pub fn status(&mut self, tag: Option<&Tag>, condition: Condition, code: Option<Code<'_>>, text: &str) {
        let utf8 = self.utf8();
        self.out.extend_from_slice(tag.map_or("*", Tag::as_str).as_bytes());
        self.out.extend_from_slice(match condition {
            Condition::Ok => b" OK ",
            Condition::No => b" NO ",
            Condition::Bad => b" BAD ",
            Condition::Bye => b" BYE ",
            Condition::PreAuth => b" PREAUTH ",
        });
        if let Some(code) = code {
            code.put(&mut self.out);
        }
        put_text(&mut self.out, text, utf8);
        self.end();
    }

    /// The answer to something that is no command.
    pub fn bad(&mut self, error: &CommandError) {
        let code = matches!(error.problem, Problem::Limit { .. }).then_some(Code::Limit);
        self.status(error.tag.as_ref(), Condition::Bad, code, &error.to_string());
    }

    /// Asks the client to go on with its command.
    pub fn continuation(&mut self, text: &str) {
        let utf8 = self.utf8();
        self.out.extend_from_slice(b"+ ");
        put_text(&mut self.out, text, utf8);
        self.end();
    }

    /// The server's part of AUTHENTICATE, in base64.
    pub fn challenge(&mut self, base64: &str) {
        self.out.extend_from_slice(b"+ ");
        self.out.extend_from_slice(base64.as_bytes());
        self.end();
    }

    /// What the server can do.
    pub fn capability(&mut self, capabilities: &[&str]) {
        self.words("CAPABILITY", capabilities.iter().copied());
    }

    /// What was enabled.
    pub fn enabled(&mut self, extensions: &[Extension]) {
        self.words("ENABLED", extensions.iter().map(|extension| extension.name()));
    }

    /// Who the server is: names and values, at most 30 (RFC 2971).
    pub fn id(&mut self, fields: &[(&str, Option<&str>)]) {
        self.begin("ID ");
        if fields.is_empty() {
            self.out.extend_from_slice(b"NIL");
        } else {
            let utf8 = self.utf8();
            self.out.push(b'(');
            put_spaced(&mut self.out, fields, |out, (name, value)| {
                put_quoted_ascii(out, name);
                out.push(b' ');
                put_nstring(out, value.map(str::as_bytes), utf8);
            });
            self.out.push(b')');
        }
        self.end();
    }

    /// One personal namespace at the root, with `/`, and no others.
    pub fn namespace(&mut self) {
        self.begin("NAMESPACE ((\"\" \"/\")) NIL NIL");
        self.end();
    }

    /// The flags that messages of the mailbox can have.
    pub fn flags<'a>(&mut self, flags: impl IntoIterator<Item = &'a Keyword>) {
        self.begin("FLAGS (");
        put_spaced(&mut self.out, flags, |out, flag| out.extend_from_slice(flag.as_str().as_bytes()));
        self.out.push(b')');
        self.end();
    }

    /// How many messages there are.
    pub fn exists(&mut self, messages: u32) {
        self.numbered(messages, "EXISTS");
    }

    /// How many of them are recent (RFC 3501).
    pub fn recent(&mut self, messages: u32) {
        self.numbered(messages, "RECENT");
    }

    /// A message went away; those after it move up.
    pub fn expunge(&mut self, number: u32) {
        self.numbered(number, "EXPUNGE");
    }

    /// UIDs of messages that went away (RFC 7162), before the mailbox was selected if `earlier`. Nothing is written if
    /// there are none.
    pub fn vanished(&mut self, earlier: bool, uids: &NumberSet) {
        if uids.is_empty() {
            return;
        }
        self.begin(if earlier { "VANISHED (EARLIER) " } else { "VANISHED " });
        uids.put(&mut self.out);
        self.end();
    }

    /// A mailbox, for LIST.
    pub fn list(&mut self, listing: &Listing<'_>) {
        self.listing("LIST", listing);
    }

    /// A mailbox, for LSUB.
    pub fn lsub(&mut self, listing: &Listing<'_>) {
        self.listing("LSUB", listing);
    }

    /// The answer to `LIST "" ""`: the separator, and the root of all names.
    pub fn list_root(&mut self) {
        self.begin("LIST (\\Noselect) \"/\" \"\"");
        self.end();
    }

    /// What STATUS tells.
    pub fn mailbox_status(&mut self, mailbox: &MailboxName, values: &[StatusValue]) {
        self.begin("STATUS ");
        put_mailbox(&mut self.out, mailbox, self.names);
        self.out.extend_from_slice(b" (");
        put_spaced(&mut self.out, values, |out, value| value.put(out));
        self.out.push(b')');
        self.end();
    }

    /// The answer to SEARCH. The highest mod-sequence is written only if there is a number.
    pub fn search(&mut self, numbers: impl IntoIterator<Item = u32>, mod_seq: Option<ModSeq>) {
        self.numbers("SEARCH", numbers, mod_seq);
    }

    /// The answer to SORT, in its order.
    pub fn sort(&mut self, numbers: impl IntoIterator<Item = u32>, mod_seq: Option<ModSeq>) {
        self.numbers("SORT", numbers, mod_seq);
    }

    /// The answer to THREAD; `lists` are its thread lists as they are written.
    pub fn thread(&mut self, lists: &[u8]) {
        self.begin("THREAD");
        if !lists.is_empty() {
            self.out.push(b' ');
            self.out.extend_from_slice(lists);
        }
        self.end();
    }

    /// The extended answer to SEARCH or SORT.
    pub fn esearch(&mut self, answer: &ESearch<'_>) {
        self.begin("ESEARCH (TAG ");
        put_string(&mut self.out, answer.tag.as_str().as_bytes(), false);
        self.out.push(b')');
        if answer.numbering == Numbering::Uid {
            self.out.extend_from_slice(b" UID");
        }
        let mod_seq = answer.mod_seq.map(ModSeq::value);
        for (name, value) in [
            (" MIN ", answer.min.map(u64::from)),
            (" MAX ", answer.max.map(u64::from)),
            (" COUNT ", answer.count.map(u64::from)),
            (" MODSEQ ", mod_seq),
        ] {
            if let Some(value) = value {
                self.out.extend_from_slice(name.as_bytes());
                put_number(&mut self.out, value);
            }
        }
        if let Some(all) = answer.all.filter(|all| !all.is_empty()) {
            self.out.extend_from_slice(b" ALL ");
            all.put(&mut self.out);
        }
        if let Some((range, found)) = answer.partial {
            self.out.extend_from_slice(b" PARTIAL (");
            range.put(&mut self.out);
            self.out.push(b' ');
            if found.is_empty() {
                self.out.extend_from_slice(b"NIL");
            } else {
                found.put(&mut self.out);
            }
            self.out.push(b')');
        }
        self.end();
    }

    /// What FETCH tells of the message with a sequence number.
    pub fn fetch(&mut self, number: u32) -> FetchRow<'_> {
        FetchRow::begin(self, number, "FETCH (")
    }

    /// What FETCH tells of the message with a UID, once UIDONLY is enabled (RFC 9586).
    pub fn uid_fetch(&mut self, uid: Uid) -> FetchRow<'_> {
        FetchRow::begin(self, uid.value(), "UIDFETCH (")
    }

    /// Goes on with a FETCH response that was left between two items, or within the octets of a literal; `first` if no item
    /// was written yet. For a session that sends what it has before it writes the rest.
    pub fn resume_fetch(&mut self, first: bool) -> FetchRow<'_> {
        FetchRow::resume(self, first)
    }

    pub(super) fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn begin(&mut self, text: &str) {
        self.out.extend_from_slice(b"* ");
        self.out.extend_from_slice(text.as_bytes());
    }

    fn numbered(&mut self, number: u32, name: &str) {
        self.begin("");
        put_number(&mut self.out, number.into());
        self.out.push(b' ');
        self.out.extend_from_slice(name.as_bytes());
        self.end();
    }

    fn words<'a>(&mut self, name: &str, words: impl Iterator<Item = &'a str>) {
        self.begin(name);
        for word in words {
            self.out.push(b' ');
            self.out.extend_from_slice(word.as_bytes());
        }
        self.end();
    }

    fn numbers(&mut self, name: &str, numbers: impl IntoIterator<Item = u32>, mod_seq: Option<ModSeq>) {
        self.begin(name);
        let mut any = false;
        for number in numbers {
            self.out.push(b' ');
            put_number(&mut self.out, number.into());
            any = true;
        }
        if let Some(mod_seq) = mod_seq.filter(|_| any) {
            self.out.extend_from_slice(b" (MODSEQ ");
            put_number(&mut self.out, mod_seq.value());
            self.out.push(b')');
        }
        self.end();
    }

    fn listing(&mut self, name: &str, listing: &Listing<'_>) {
        self.begin(name);
        self.out.extend_from_slice(b" (");
        put_spaced(&mut self.out, listing.attributes, |out, attribute| {
            out.extend_from_slice(attribute.name().as_bytes());
        });
        self.out.extend_from_slice(b") \"/\" ");
        put_mailbox(&mut self.out, listing.mailbox, self.names);
        if listing.child_subscribed || listing.old_name.is_some() {
            self.out.extend_from_slice(b" (");
            if listing.child_subscribed {
                self.out.extend_from_slice(b"\"CHILDINFO\" (\"SUBSCRIBED\")");
            }
            if let Some(old) = listing.old_name {
                self.out.extend_from_slice(if listing.child_subscribed { b" " } else { b"" });
                self.out.extend_from_slice(b"\"OLDNAME\" (");
                put_mailbox(&mut self.out, old, self.names);
                self.out.push(b')');
            }
            self.out.push(b')');
        }
        self.end();
    }
}

impl Attribute {
    /// The attribute as LIST writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Attribute::NonExistent => "\\NonExistent",
            Attribute::NoSelect => "\\Noselect",
            Attribute::NoInferiors => "\\Noinferiors",
            Attribute::HasChildren => "\\HasChildren",
            Attribute::HasNoChildren => "\\HasNoChildren",
            Attribute::Subscribed => "\\Subscribed",
            Attribute::Use(special_use) => special_use.name(),
        }
    }
}

impl StatusValue {
    fn put(&self, out: &mut Vec<u8>) {
        let (name, value) = match *self {
            StatusValue::Messages(count) => ("MESSAGES ", count.into()),
            StatusValue::Recent(count) => ("RECENT ", count.into()),
            StatusValue::UidNext(uid) => ("UIDNEXT ", uid.value().into()),
            StatusValue::UidValidity(value) => ("UIDVALIDITY ", value.value().into()),
            StatusValue::Unseen(count) => ("UNSEEN ", count.into()),
            StatusValue::Deleted(count) => ("DELETED ", count.into()),
            StatusValue::Size(octets) => ("SIZE ", octets),
            StatusValue::HighestModSeq(mod_seq) => ("HIGHESTMODSEQ ", mod_seq.value()),
            StatusValue::MailboxId(id) => {
                out.extend_from_slice(b"MAILBOXID (");
                out.extend_from_slice(id.to_string().as_bytes());
                return out.push(b')');
            }
        };
        out.extend_from_slice(name.as_bytes());
        put_number(out, value);
    }
}

impl Found<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Found::Set(set) => set.is_empty(),
            Found::Sorted(numbers) => numbers.is_empty(),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Found::Set(set) => set.put(out),
            Found::Sorted(numbers) => put_runs(out, numbers.iter().copied()),
        }
    }
}
