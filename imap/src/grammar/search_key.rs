//! The keys of SEARCH.

use postmerge::mailbox::{Keyword, ModSeq};

use super::date::{Date, date};
use super::error::{Fault, Parsed, Problem};
use super::names::{Flag, keyword};
use super::scanner::Scanner;
use super::section::field_name;
use super::set::{MessageSet, message_set};

/// One condition on a message. Texts are octets in the charset that the command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchKey {
    /// ALL
    All,
    /// A set of sequence numbers.
    Messages(MessageSet),
    /// UID with a set of UIDs.
    Uid(MessageSet),
    /// ANSWERED, DELETED, DRAFT, FLAGGED, SEEN or KEYWORD.
    Has(Flag),
    /// UNANSWERED, UNDELETED and so on, UNKEYWORD.
    HasNot(Flag),
    /// RECENT (RFC 3501). NEW and OLD are put together from it.
    Recent,
    /// BCC, CC, FROM, SUBJECT, TO: a text in a field of the envelope.
    Envelope(EnvelopeField, Vec<u8>),
    /// HEADER: a text in the header field of a name; an empty text asks whether there is such a field.
    Header(Vec<u8>, Vec<u8>),
    /// BODY
    Body(Vec<u8>),
    /// TEXT
    Text(Vec<u8>),
    /// BEFORE, ON, SINCE: the internal date, SENT...: the Date field, SAVED...: the save date (RFC 8514). All
    /// without regard of time and zone.
    Date(DateOf, Relation, Date),
    /// SAVEDATESUPPORTED (RFC 8514)
    SaveDateSupported,
    /// LARGER than so many octets.
    Larger(u64),
    /// SMALLER than so many octets.
    Smaller(u64),
    /// OLDER: an internal date at least so many seconds ago (RFC 5032).
    Older(u32),
    /// YOUNGER: an internal date less than so many seconds ago.
    Younger(u32),
    /// MODSEQ: changed at or after (RFC 7162). The name of one flag may be given but need not be heeded.
    ModSeq(ModSeq),
    /// EMAILID (RFC 8474)
    EmailId(String),
    /// THREADID (RFC 8474)
    ThreadId(String),
    /// NOT
    Not(Box<SearchKey>),
    /// OR
    Or(Box<SearchKey>, Box<SearchKey>),
    /// Keys in parentheses.
    And(Vec<SearchKey>),
}

/// A field of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of header fields")]
pub enum EnvelopeField {
    Bcc,
    Cc,
    From,
    Subject,
    To,
}

/// Which date is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DateOf {
    /// The internal date.
    Internal,
    /// The Date field.
    Sent,
    /// When the message came into the mailbox.
    Saved,
}

/// How a date is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Earlier than the day.
    Before,
    /// On the day.
    On,
    /// On the day or later.
    Since,
}

impl SearchKey {
    /// Deepest nesting of NOT, OR and parentheses: an OR of as many terms nests as deep, and people search for some
    /// dozen addresses at once; the stack of whoever reads and evaluates keys has to hold it.
    pub const MAX_DEPTH: usize = 128;

    /// How many keys it is, itself and those inside included. What a command may have of them, the session decides; how many
    /// can be read at all, the length of a command bounds.
    pub fn count(&self) -> usize {
        1 + match self {
            SearchKey::Not(key) => key.count(),
            SearchKey::Or(one, other) => one.count() + other.count(),
            SearchKey::And(keys) => keys.iter().map(SearchKey::count).sum(),
            _ => 0,
        }
    }
}

/// One or more keys with spaces between.
pub(super) fn search_keys(scanner: &mut Scanner<'_>) -> Parsed<Vec<SearchKey>> {
    let mut reading = Reading { depth: 0 };
    let mut keys = vec![reading.key(scanner)?];
    while scanner.eat(b' ') {
        keys.push(reading.key(scanner)?);
    }
    Ok(keys)
}

struct Reading {
    depth: usize,
}

impl Reading {
    fn key(&mut self, scanner: &mut Scanner<'_>) -> Parsed<SearchKey> {
        match scanner.peek() {
            Some(b'0'..=b'9' | b'*' | b'$') => message_set(scanner).map(SearchKey::Messages),
            Some(b'(') => self.nested(scanner, |reading, scanner| {
                scanner.list(|scanner| reading.key(scanner)).map(SearchKey::And)
            }),
            _ if scanner.eat_word("NOT") => self.nested(scanner, |reading, scanner| {
                scanner.space()?;
                Ok(SearchKey::Not(Box::new(reading.key(scanner)?)))
            }),
            _ if scanner.eat_word("OR") => self.nested(scanner, |reading, scanner| {
                scanner.space()?;
                let first = reading.key(scanner)?;
                scanner.space()?;
                Ok(SearchKey::Or(Box::new(first), Box::new(reading.key(scanner)?)))
            }),
            _ => simple_key(scanner),
        }
    }

    fn nested(
        &mut self,
        scanner: &mut Scanner<'_>,
        read: impl FnOnce(&mut Self, &mut Scanner<'_>) -> Parsed<SearchKey>,
    ) -> Parsed<SearchKey> {
        if self.depth == SearchKey::MAX_DEPTH {
            let problem = Problem::Limit { what: "levels of search keys", max: SearchKey::MAX_DEPTH };
            return Err(scanner.fault(problem));
        }
        self.depth += 1;
        let key = read(self, scanner);
        self.depth -= 1;
        key
    }
}

fn simple_key(scanner: &mut Scanner<'_>) -> Parsed<SearchKey> {
    let at = scanner.at();
    let what = "a search key";
    let name = scanner.atom(what)?.to_ascii_uppercase();
    if let Some(key) = flag_key(&name) {
        return Ok(key);
    }
    match name.as_str() {
        "ALL" => return Ok(SearchKey::All),
        "SAVEDATESUPPORTED" => return Ok(SearchKey::SaveDateSupported),
        _ => {}
    }
    let argument = KeyArgument::of(&name).ok_or(Fault { at, problem: Problem::Expected(what) })?;
    scanner.space()?;
    argument.read(scanner)
}

/// Keys without an argument that speak of flags.
fn flag_key(name: &str) -> Option<SearchKey> {
    match name {
        "RECENT" => return Some(SearchKey::Recent),
        "OLD" => return Some(SearchKey::Not(Box::new(SearchKey::Recent))),
        "NEW" => {
            let unseen = SearchKey::HasNot(Flag::Keyword(Keyword::seen()));
            return Some(SearchKey::And(vec![SearchKey::Recent, unseen]));
        }
        _ => {}
    }
    let (name, key): (_, fn(Flag) -> SearchKey) = match name.strip_prefix("UN") {
        Some(name) => (name, SearchKey::HasNot),
        None => (name, SearchKey::Has),
    };
    let system = ["ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN"].contains(&name);
    let flag = system.then(|| format!("\\{name}").parse::<Keyword>().ok()).flatten()?;
    Some(key(Flag::Keyword(flag)))
}

/// What follows the name of a key.
enum KeyArgument {
    Text(fn(Vec<u8>) -> SearchKey),
    Envelope(EnvelopeField),
    Header,
    Keyword(fn(Flag) -> SearchKey),
    Date(DateOf, Relation),
    Size(fn(u64) -> SearchKey),
    Seconds(fn(u32) -> SearchKey),
    ObjectId(fn(String) -> SearchKey),
    ModSeq,
    Uid,
}

impl KeyArgument {
    fn of(name: &str) -> Option<KeyArgument> {
        Some(match name {
            "BCC" => KeyArgument::Envelope(EnvelopeField::Bcc),
            "CC" => KeyArgument::Envelope(EnvelopeField::Cc),
            "FROM" => KeyArgument::Envelope(EnvelopeField::From),
            "SUBJECT" => KeyArgument::Envelope(EnvelopeField::Subject),
            "TO" => KeyArgument::Envelope(EnvelopeField::To),
            "BODY" => KeyArgument::Text(SearchKey::Body),
            "TEXT" => KeyArgument::Text(SearchKey::Text),
            "HEADER" => KeyArgument::Header,
            "KEYWORD" => KeyArgument::Keyword(SearchKey::Has),
            "UNKEYWORD" => KeyArgument::Keyword(SearchKey::HasNot),
            "BEFORE" => KeyArgument::Date(DateOf::Internal, Relation::Before),
            "ON" => KeyArgument::Date(DateOf::Internal, Relation::On),
            "SINCE" => KeyArgument::Date(DateOf::Internal, Relation::Since),
            "SENTBEFORE" => KeyArgument::Date(DateOf::Sent, Relation::Before),
            "SENTON" => KeyArgument::Date(DateOf::Sent, Relation::On),
            "SENTSINCE" => KeyArgument::Date(DateOf::Sent, Relation::Since),
            "SAVEDBEFORE" => KeyArgument::Date(DateOf::Saved, Relation::Before),
            "SAVEDON" => KeyArgument::Date(DateOf::Saved, Relation::On),
            "SAVEDSINCE" => KeyArgument::Date(DateOf::Saved, Relation::Since),
            "LARGER" => KeyArgument::Size(SearchKey::Larger),
            "SMALLER" => KeyArgument::Size(SearchKey::Smaller),
            "OLDER" => KeyArgument::Seconds(SearchKey::Older),
            "YOUNGER" => KeyArgument::Seconds(SearchKey::Younger),
            "EMAILID" => KeyArgument::ObjectId(SearchKey::EmailId),
            "THREADID" => KeyArgument::ObjectId(SearchKey::ThreadId),
            "MODSEQ" => KeyArgument::ModSeq,
            "UID" => KeyArgument::Uid,
            _ => return None,
        })
    }

    fn read(self, scanner: &mut Scanner<'_>) -> Parsed<SearchKey> {
        Ok(match self {
            KeyArgument::Text(key) => key(text(scanner)?),
            KeyArgument::Envelope(field) => SearchKey::Envelope(field, text(scanner)?),
            KeyArgument::Header => {
                let field = field_name(scanner)?;
                scanner.space()?;
                SearchKey::Header(field, text(scanner)?)
            }
            KeyArgument::Keyword(key) => key(keyword(scanner)?),
            KeyArgument::Date(of, relation) => SearchKey::Date(of, relation, date(scanner)?),
            KeyArgument::Size(key) => key(scanner.number64("a size")?),
            KeyArgument::Seconds(key) => key(scanner.nz_number("seconds above 0")?),
            KeyArgument::ObjectId(key) => key(object_id(scanner)?),
            KeyArgument::ModSeq => SearchKey::ModSeq(mod_seq(scanner)?),
            KeyArgument::Uid => SearchKey::Uid(message_set(scanner)?),
        })
    }
}

fn text(scanner: &mut Scanner<'_>) -> Parsed<Vec<u8>> {
    scanner.astring("a text to search for").map(|text| text.into_owned())
}

/// An id of a message or thread: 1 to 255 letters, digits, `_` and `-`.
fn object_id(scanner: &mut Scanner<'_>) -> Parsed<String> {
    let at = scanner.at();
    let what = "an object id";
    let id = scanner.astring(what)?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let valid = (1..=255).contains(&id.len()) && id.iter().all(allowed);
    let id = String::from_utf8(id.into_owned()).ok().filter(|_| valid);
    id.ok_or(Fault { at, problem: Problem::Expected(what) })
}

/// `["/flags/\\draft" all] 620162338`. This server keeps one mod-sequence for a message and none for each flag, so
/// RFC 7162, section 3.1.5, has it ignore the flag.
fn mod_seq(scanner: &mut Scanner<'_>) -> Parsed<ModSeq> {
    if scanner.peek() == Some(b'"') {
        let at = scanner.at();
        let entry = scanner.string("the name of a flag")?;
        if !entry.to_ascii_lowercase().starts_with(b"/flags/") {
            return Err(Fault { at, problem: Problem::Expected("\"/flags/...\"") });
        }
        scanner.space()?;
        scanner.one_of("priv, shared or all", &[("priv", ()), ("shared", ()), ("all", ())])?;
        scanner.space()?;
    }
    Ok(ModSeq::from_value(scanner.number64("a mod-sequence")?))
}
