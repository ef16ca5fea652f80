//! Commands back to text, in one canonical form: every string quoted or a literal, every list in parentheses, options
//! in alphabetical order.

use crate::grammar::*;
use postmerge::mailbox::SpecialUse;

pub(super) fn print(command: &Command) -> Vec<u8> {
    let mut out = format!("{} ", command.tag).into_bytes();
    body(&mut out, &command.body);
    out
}

fn word(out: &mut Vec<u8>, word: impl AsRef<str>) {
    out.extend_from_slice(word.as_ref().as_bytes());
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        let text = String::from_utf8_lossy(text).replace('\\', "\\\\").replace('"', "\\\"");
        word(out, format!("\"{text}\""));
    } else {
        word(out, format!("{{{}+}}\r\n", text.len()));
        out.extend_from_slice(text);
    }
}

/// A name that no mailbox can have comes back as one that none can have either.
fn mailbox(out: &mut Vec<u8>, mailbox: &MailboxArg) {
    match mailbox {
        Ok(name) => string(out, postmerge::maildir::encode_mutf7(name.as_str()).as_bytes()),
        Err(error) => word(out, format!("<{error}>")),
    }
}

fn list(out: &mut Vec<u8>, items: impl IntoIterator<Item = impl AsRef<str>>) {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    word(out, format!("({})", items.join(" ")));
}

fn number(number: SequenceNumber) -> String {
    match number {
        SequenceNumber::Number(number) => number.to_string(),
        SequenceNumber::Last => "*".into(),
    }
}

fn sequence(set: &SequenceSet) -> String {
    let range = |(from, to): &(SequenceNumber, SequenceNumber)| match from == to {
        true => number(*from),
        false => format!("{}:{}", number(*from), number(*to)),
    };
    set.ranges().iter().map(range).collect::<Vec<_>>().join(",")
}

fn messages(set: &MessageSet) -> String {
    match set {
        MessageSet::Saved => "$".into(),
        MessageSet::Numbers(set) => sequence(set),
    }
}

fn uid(numbering: Numbering) -> &'static str {
    match numbering {
        Numbering::Sequence => "",
        Numbering::Uid => "UID ",
    }
}

fn flag(flag: &Flag) -> String {
    match flag {
        Flag::Keyword(keyword) => keyword.to_string(),
        Flag::Other(text) => text.to_string(),
    }
}

fn status(item: &StatusItem) -> &'static str {
    match item {
        StatusItem::Messages => "MESSAGES",
        StatusItem::Recent => "RECENT",
        StatusItem::UidNext => "UIDNEXT",
        StatusItem::UidValidity => "UIDVALIDITY",
        StatusItem::Unseen => "UNSEEN",
        StatusItem::Deleted => "DELETED",
        StatusItem::Size => "SIZE",
        StatusItem::HighestModSeq => "HIGHESTMODSEQ",
        StatusItem::MailboxId => "MAILBOXID",
    }
}

fn body(out: &mut Vec<u8>, body: &CommandBody) {
    match body {
        CommandBody::Capability => word(out, "CAPABILITY"),
        CommandBody::Noop => word(out, "NOOP"),
        CommandBody::Logout => word(out, "LOGOUT"),
        CommandBody::StartTls => word(out, "STARTTLS"),
        CommandBody::Authenticate { mechanism, initial_response } => {
            word(out, format!("AUTHENTICATE {}", mechanism.name()));
            if let Some(response) = initial_response {
                word(out, format!(" {}", String::from_utf8_lossy(response.as_bytes())));
            }
        }
        CommandBody::Login { user, password } => {
            word(out, "LOGIN ");
            string(out, user);
            word(out, " ");
            string(out, password.as_bytes());
        }
        CommandBody::Compress => word(out, "COMPRESS DEFLATE"),
        CommandBody::Enable(extensions) => {
            let names: Vec<_> = extensions.iter().map(|extension| extension.name()).collect();
            word(out, format!("ENABLE {}", if names.is_empty() { "X".into() } else { names.join(" ") }));
        }
        CommandBody::Id(fields) => {
            word(out, "ID (");
            for (at, (name, value)) in fields.iter().enumerate() {
                word(out, if at > 0 { " " } else { "" });
                string(out, name);
                word(out, " ");
                match value {
                    Some(value) => string(out, value),
                    None => word(out, "NIL"),
                }
            }
            word(out, ")");
        }
        CommandBody::Namespace => word(out, "NAMESPACE"),
        CommandBody::Select(arguments) => select(out, "SELECT ", arguments),
        CommandBody::Examine(arguments) => select(out, "EXAMINE ", arguments),
        CommandBody::Create { mailbox: name, uses } => {
            word(out, "CREATE ");
            mailbox(out, name);
            if !uses.is_empty() {
                word(out, " (USE ");
                list(out, uses.iter().map(|known| known.map_or("\\Unknown", SpecialUse::name)));
                word(out, ")");
            }
        }
        CommandBody::Delete(name) => one(out, "DELETE ", name),
        CommandBody::Subscribe(name) => one(out, "SUBSCRIBE ", name),
        CommandBody::Unsubscribe(name) => one(out, "UNSUBSCRIBE ", name),
        CommandBody::Rename { from, to } => {
            one(out, "RENAME ", from);
            one(out, " ", to);
        }
        CommandBody::List(arguments) => print_list(out, arguments),
        CommandBody::Lsub(arguments) => word(out, format!("LSUB \"\" {:?}", arguments.pattern)),
        CommandBody::Status { mailbox: name, items } => {
            one(out, "STATUS ", name);
            word(out, " ");
            list(out, items.iter().map(status));
        }
        CommandBody::Idle => word(out, "IDLE"),
        CommandBody::Check => word(out, "CHECK"),
        CommandBody::Close => word(out, "CLOSE"),
        CommandBody::Unselect => word(out, "UNSELECT"),
        CommandBody::Expunge { uids: None } => word(out, "EXPUNGE"),
        CommandBody::Expunge { uids: Some(uids) } => word(out, format!("UID EXPUNGE {}", messages(uids))),
        CommandBody::Search(arguments) => {
            word(out, format!("{}SEARCH ", uid(arguments.numbering)));
            returns(out, arguments.returns);
            if arguments.criteria.charset.is_some() {
                word(out, "CHARSET ");
                charset(out, &arguments.criteria);
            }
            keys(out, &arguments.criteria.keys);
        }
        CommandBody::Sort(arguments) => sort(out, arguments),
        CommandBody::Thread(arguments) => {
            let algorithm = match arguments.algorithm {
                ThreadAlgorithm::OrderedSubject => "ORDEREDSUBJECT",
                ThreadAlgorithm::References => "REFERENCES",
            };
            word(out, format!("{}THREAD {algorithm} ", uid(arguments.numbering)));
            charset(out, &arguments.criteria);
            keys(out, &arguments.criteria.keys);
        }
        CommandBody::Fetch(arguments) => fetch(out, arguments),
        CommandBody::Store(arguments) => store(out, arguments),
        CommandBody::Copy { numbering, messages: set, to } => {
            one(out, &format!("{}COPY {} ", uid(*numbering), messages(set)), to);
        }
        CommandBody::Move { numbering, messages: set, to } => {
            one(out, &format!("{}MOVE {} ", uid(*numbering), messages(set)), to);
        }
    }
}

fn one(out: &mut Vec<u8>, name: &str, argument: &MailboxArg) {
    word(out, name);
    mailbox(out, argument);
}

fn select(out: &mut Vec<u8>, name: &str, select: &Select) {
    one(out, name, &select.mailbox);
    let mut parameters = Vec::new();
    if select.condstore {
        parameters.push("CONDSTORE".to_owned());
    }
    if let Some(known) = &select.qresync {
        let mut text = format!("{} {}", known.uid_validity, known.mod_seq.value());
        if let Some(uids) = &known.known_uids {
            text += &format!(" {}", sequence(uids));
        }
        if let Some(matches) = &known.matches {
            text += &format!(" ({} {})", sequence(&matches.numbers), sequence(&matches.uids));
        }
        parameters.push(format!("QRESYNC ({text})"));
    }
    if !parameters.is_empty() {
        word(out, " ");
        list(out, parameters);
    }
}

fn chosen(options: &[(&'static str, bool)]) -> Vec<String> {
    options.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()).collect()
}

fn print_list(out: &mut Vec<u8>, arguments: &List) {
    word(out, "LIST ");
    let ListSelect { subscribed, remote, recursive_match, special_use } = arguments.select;
    if arguments.extended {
        list(
            out,
            chosen(&[
                ("RECURSIVEMATCH", recursive_match),
                ("REMOTE", remote),
                ("SPECIAL-USE", special_use),
                ("SUBSCRIBED", subscribed),
            ]),
        );
        word(out, " ");
    }
    word(out, "\"\" ");
    match (&arguments.patterns[..], arguments.extended) {
        ([], _) => word(out, "\"\""),
        ([pattern], _) => word(out, format!("{pattern:?}")),
        (patterns, _) => list(out, patterns.iter().map(|pattern| format!("{pattern:?}"))),
    }
    let ListReturn { subscribed, children, special_use, status: items } = &arguments.returns;
    let mut options =
        chosen(&[("CHILDREN", *children), ("SPECIAL-USE", *special_use), ("SUBSCRIBED", *subscribed)]);
    if !items.is_empty() {
        options.push(format!("STATUS ({})", items.iter().map(status).collect::<Vec<_>>().join(" ")));
    }
    if !options.is_empty() {
        word(out, " RETURN ");
        list(out, options);
    }
}

fn partial_range(range: PartialRange) -> String {
    let sign = if range.from_end { "-" } else { "" };
    format!("PARTIAL {sign}{}:{sign}{}", range.first, range.last)
}

fn returns(out: &mut Vec<u8>, returns: Option<SearchReturn>) {
    let Some(SearchReturn { min, max, all, count, save, partial }) = returns else { return };
    let mut options = chosen(&[("ALL", all), ("COUNT", count), ("MAX", max), ("MIN", min), ("SAVE", save)]);
    options.extend(partial.map(partial_range));
    word(out, "RETURN ");
    list(out, options);
    word(out, " ");
}

fn sort(out: &mut Vec<u8>, arguments: &Sort) {
    word(out, format!("{}SORT ", uid(arguments.numbering)));
    returns(out, arguments.returns);
    let criterion = |criterion: &SortCriterion| {
        let key = match criterion.key {
            SortKey::Arrival => "ARRIVAL",
            SortKey::Cc => "CC",
            SortKey::Date => "DATE",
            SortKey::DisplayFrom => "DISPLAYFROM",
            SortKey::DisplayTo => "DISPLAYTO",
            SortKey::From => "FROM",
            SortKey::Size => "SIZE",
            SortKey::Subject => "SUBJECT",
            SortKey::To => "TO",
        };
        format!("{}{key}", if criterion.reverse { "REVERSE " } else { "" })
    };
    list(out, arguments.by.iter().map(criterion));
    word(out, " ");
    charset(out, &arguments.criteria);
    keys(out, &arguments.criteria.keys);
}

fn charset(out: &mut Vec<u8>, criteria: &Criteria) {
    let charset = criteria.charset.as_deref().unwrap_or_default();
    if !charset.is_empty() && charset.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        word(out, charset);
    } else {
        string(out, charset.as_bytes());
    }
    word(out, " ");
}

fn keys(out: &mut Vec<u8>, keys: &[SearchKey]) {
    for (at, one) in keys.iter().enumerate() {
        word(out, if at > 0 { " " } else { "" });
        key(out, one);
    }
}

fn date(date: Date) -> String {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = date.year_month_day();
    format!("{day}-{}-{year:04}", months[usize::from(month) - 1])
}

pub(super) fn key(out: &mut Vec<u8>, key_: &SearchKey) {
    let named_text = |out: &mut Vec<u8>, name: &str, text: &[u8]| {
        word(out, format!("{name} "));
        string(out, text);
    };
    match key_ {
        SearchKey::All => word(out, "ALL"),
        SearchKey::Messages(set) => word(out, messages(set)),
        SearchKey::Uid(set) => word(out, format!("UID {}", messages(set))),
        SearchKey::Has(Flag::Keyword(system)) if system.is_system() => {
            word(out, system.as_str()[1..].to_ascii_uppercase());
        }
        SearchKey::HasNot(Flag::Keyword(system)) if system.is_system() => {
            word(out, format!("UN{}", system.as_str()[1..].to_ascii_uppercase()));
        }
        SearchKey::Has(keyword) => word(out, format!("KEYWORD {}", flag(keyword))),
        SearchKey::HasNot(keyword) => word(out, format!("UNKEYWORD {}", flag(keyword))),
        SearchKey::Recent => word(out, "RECENT"),
        SearchKey::Envelope(field, text) => {
            named_text(out, &format!("{field:?}").to_ascii_uppercase(), text);
        }
        SearchKey::Header(field, text) => {
            named_text(out, "HEADER", field);
            named_text(out, "", text);
        }
        SearchKey::Body(text) => named_text(out, "BODY", text),
        SearchKey::Text(text) => named_text(out, "TEXT", text),
        SearchKey::Date(of, relation, day) => {
            let of = match of {
                DateOf::Internal => "",
                DateOf::Sent => "SENT",
                DateOf::Saved => "SAVED",
            };
            let relation = format!("{relation:?}").to_ascii_uppercase();
            word(out, format!("{of}{relation} {}", date(*day)));
        }
        SearchKey::SaveDateSupported => word(out, "SAVEDATESUPPORTED"),
        SearchKey::Larger(octets) => word(out, format!("LARGER {octets}")),
        SearchKey::Smaller(octets) => word(out, format!("SMALLER {octets}")),
        SearchKey::Older(seconds) => word(out, format!("OLDER {seconds}")),
        SearchKey::Younger(seconds) => word(out, format!("YOUNGER {seconds}")),
        SearchKey::ModSeq(mod_seq) => word(out, format!("MODSEQ {}", mod_seq.value())),
        SearchKey::EmailId(id) => word(out, format!("EMAILID \"{id}\"")),
        SearchKey::ThreadId(id) => word(out, format!("THREADID \"{id}\"")),
        SearchKey::Not(inner) => {
            word(out, "NOT ");
            key(out, inner);
        }
        SearchKey::Or(a, b) => {
            word(out, "OR ");
            key(out, a);
            word(out, " ");
            key(out, b);
        }
        SearchKey::And(inner) => {
            word(out, "(");
            keys(out, inner);
            word(out, ")");
        }
    }
}

fn fetch(out: &mut Vec<u8>, arguments: &Fetch) {
    word(out, format!("{}FETCH {} ", uid(arguments.numbering), messages(&arguments.messages)));
    for (at, item) in arguments.items.iter().enumerate() {
        word(out, if at > 0 { " " } else { "(" });
        out.extend(fetch_item(item));
    }
    word(out, ")");
    let mut modifiers = Vec::new();
    modifiers.extend(arguments.changed_since.map(|since| format!("CHANGEDSINCE {}", since.value())));
    modifiers.extend(arguments.partial.map(partial_range));
    modifiers.extend(arguments.vanished.then(|| "VANISHED".to_owned()));
    if !modifiers.is_empty() {
        word(out, " ");
        list(out, modifiers);
    }
}

fn fetch_item(item: &FetchItem) -> Vec<u8> {
    let part = |part: &[u32]| part.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let piece = |piece: &Option<Partial>| match piece {
        Some(Partial { start, length }) => format!("<{start}.{length}>"),
        None => String::new(),
    };
    let peek = |peek: &bool| if *peek { ".PEEK" } else { "" };
    let text = match item {
        FetchItem::Body => "BODY".into(),
        FetchItem::BodyStructure => "BODYSTRUCTURE".into(),
        FetchItem::Envelope => "ENVELOPE".into(),
        FetchItem::Flags => "FLAGS".into(),
        FetchItem::InternalDate => "INTERNALDATE".into(),
        FetchItem::Size => "RFC822.SIZE".into(),
        FetchItem::Uid => "UID".into(),
        FetchItem::ModSeq => "MODSEQ".into(),
        FetchItem::EmailId => "EMAILID".into(),
        FetchItem::ThreadId => "THREADID".into(),
        FetchItem::SaveDate => "SAVEDATE".into(),
        FetchItem::Preview { lazy: false } => "PREVIEW".into(),
        FetchItem::Preview { lazy: true } => "PREVIEW (LAZY)".into(),
        FetchItem::Rfc822 => "RFC822".into(),
        FetchItem::Rfc822Header => "RFC822.HEADER".into(),
        FetchItem::Rfc822Text => "RFC822.TEXT".into(),
        FetchItem::Section { peek: peeks, section, partial } => {
            let mut spelled = format!("BODY{}", peek(peeks)).into_bytes();
            section.put(&mut spelled);
            word(&mut spelled, piece(partial));
            return spelled;
        }
        FetchItem::Binary { peek: peeks, part: numbers, partial } => {
            format!("BINARY{}[{}]{}", peek(peeks), part(numbers), piece(partial))
        }
        FetchItem::BinarySize { part: numbers } => format!("BINARY.SIZE[{}]", part(numbers)),
    };
    text.into_bytes()
}

fn store(out: &mut Vec<u8>, arguments: &Store) {
    word(out, format!("{}STORE {} ", uid(arguments.numbering), messages(&arguments.messages)));
    if let Some(since) = arguments.unchanged_since {
        word(out, format!("(UNCHANGEDSINCE {}) ", since.value()));
    }
    word(
        out,
        match arguments.action {
            StoreAction::Replace => "FLAGS",
            StoreAction::Add => "+FLAGS",
            StoreAction::Remove => "-FLAGS",
        },
    );
    word(out, if arguments.silent { ".SILENT " } else { " " });
    list(out, arguments.flags.iter().map(flag));
}
