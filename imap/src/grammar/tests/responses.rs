//! Responses as they go over the wire.

use crate::grammar::*;
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;
use postmerge::mailbox::{Keyword, MailboxId, MailboxName, ModSeq, SpecialUse, Uid, UidValidity};

fn written(names: NameEncoding, write: impl FnOnce(&mut Responses)) -> String {
    let mut responses = Responses::new();
    responses.set_names(names);
    write(&mut responses);
    String::from_utf8(responses.take()).unwrap()
}

/// The one line that is written for a client of IMAP4rev1, without its end.
fn line(write: impl FnOnce(&mut Responses)) -> String {
    written(NameEncoding::ModifiedUtf7, write).strip_suffix("\r\n").unwrap().to_owned()
}

fn tag(text: &str) -> Tag {
    Command::parse(format!("{text} NOOP").as_bytes(), NameEncoding::ModifiedUtf7).unwrap().tag
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

fn set(numbers: &[u32]) -> NumberSet {
    numbers.iter().copied().collect()
}

fn mailbox(name: &str) -> MailboxName {
    name.parse().unwrap()
}

#[test]
fn status_responses() {
    let a1 = tag("a1");
    assert_eq!(line(|out| out.status(Some(&a1), Condition::Ok, None, "done")), "a1 OK done");
    assert_eq!(line(|out| out.status(None, Condition::Bye, None, "")), "* BYE -");
    let injected = "a\r\n* BYE \0ä";
    assert_eq!(line(|out| out.status(None, Condition::No, None, injected)), "* NO a??* BYE ??");
    let utf8 = written(NameEncoding::Utf8, |out| out.status(None, Condition::No, None, "ä"));
    assert_eq!(utf8, "* NO ä\r\n");
    let error = Command::parse(b"a1 NONSENSE", NameEncoding::Utf8).unwrap_err();
    assert_eq!(line(|out| out.bad(&error)), "a1 BAD unknown command at byte 3");
    let error = CommandError { problem: Problem::Limit { what: "octets in a line", max: 9 }, ..error };
    assert_eq!(line(|out| out.bad(&error)), "a1 BAD [LIMIT] more than 9 octets in a line at byte 3");
    assert_eq!(line(|out| out.continuation("go on")), "+ go on");
    assert_eq!(line(|out| out.challenge("")), "+ ");
    assert_eq!(line(|out| out.challenge("YWI=")), "+ YWI=");
}

#[test]
fn response_codes() {
    let validity = UidValidity::new(7).unwrap();
    let flags = ["\\Deleted", "$Junk"].map(|flag| flag.parse::<Keyword>().unwrap());
    let uids = [(uid(3), uid(10)), (uid(4), uid(11)), (uid(9), uid(5))];
    let copies = CopyUid { uid_validity: validity, uids: &uids };
    for (code, written) in [
        (Code::Alert, "[ALERT] "),
        (Code::ReadOnly, "[READ-ONLY] "),
        (Code::UnknownCte, "[UNKNOWN-CTE] "),
        (Code::AppendUid(validity, &set(&[1, 2, 5])), "[APPENDUID 7 1:2,5] "),
        (Code::AppendUid(validity, &set(&[])), ""),
        (Code::BadCharset(&[]), "[BADCHARSET] "),
        (Code::BadCharset(&["US-ASCII", "UTF-8"]), "[BADCHARSET (\"US-ASCII\" \"UTF-8\")] "),
        (Code::BadUrl("/x;UID=1"), "[BADURL /x;UID=1] "),
        (Code::Capability(&["IMAP4rev1", "IDLE"]), "[CAPABILITY IMAP4rev1 IDLE] "),
        (Code::CopyUid(copies), "[COPYUID 7 3:4,9 10:11,5] "),
        (Code::HighestModSeq(ModSeq::from_value(12)), "[HIGHESTMODSEQ 12] "),
        (Code::MailboxId(MailboxId::from_bytes([0; 16])), "[MAILBOXID (aaaaaaaaaaaaaaaaaaaaaaaaaa)] "),
        (Code::Modified(&set(&[7, 9])), "[MODIFIED 7,9] "),
        (Code::PermanentFlags(&flags, true), "[PERMANENTFLAGS (\\Deleted $Junk \\*)] "),
        (Code::PermanentFlags(&[], false), "[PERMANENTFLAGS ()] "),
        (Code::UidNext(uid(4)), "[UIDNEXT 4] "),
        (Code::UidValidity(validity), "[UIDVALIDITY 7] "),
        (Code::Unseen(3), "[UNSEEN 3] "),
    ] {
        let text = line(|out| out.status(None, Condition::Ok, Some(code), "x"));
        assert_eq!(text, format!("* OK {written}x"));
    }
}

#[test]
fn data_of_the_server_and_of_mailboxes() {
    let ns = |write: fn(&mut Responses)| line(write);
    assert_eq!(ns(|out| out.capability(&["IMAP4rev1", "X"])), "* CAPABILITY IMAP4rev1 X");
    assert_eq!(ns(|out| out.enabled(&[Extension::Imap4rev2])), "* ENABLED IMAP4rev2");
    assert_eq!(ns(|out| out.enabled(&[])), "* ENABLED");
    assert_eq!(ns(|out| out.namespace()), "* NAMESPACE ((\"\" \"/\")) NIL NIL");
    assert_eq!(ns(|out| out.id(&[])), "* ID NIL");
    assert_eq!(ns(|out| out.id(&[("name", Some("p")), ("os", None)])), "* ID (\"name\" \"p\" \"os\" NIL)");
    assert_eq!(ns(|out| out.list_root()), "* LIST (\\Noselect) \"/\" \"\"");
    let flags = ["\\Seen", "x"].map(|flag| flag.parse::<Keyword>().unwrap());
    assert_eq!(line(|out| out.flags(&flags)), "* FLAGS (\\Seen x)");
    let (name, old) = (mailbox("Entwürfe"), mailbox("a b"));
    let attributes = [Attribute::HasNoChildren, Attribute::Use(SpecialUse::Drafts)];
    let mut listing =
        Listing { attributes: &attributes, mailbox: &name, child_subscribed: false, old_name: None };
    let plain = "(\\HasNoChildren \\Drafts) \"/\" \"Entw&APw-rfe\"";
    assert_eq!(line(|out| out.list(&listing)), format!("* LIST {plain}"));
    assert_eq!(line(|out| out.lsub(&listing)), format!("* LSUB {plain}"));
    listing = Listing { child_subscribed: true, old_name: Some(&old), ..listing };
    let extended = format!("* LIST {plain} (\"CHILDINFO\" (\"SUBSCRIBED\") \"OLDNAME\" (\"a b\"))");
    assert_eq!(line(|out| out.list(&listing)), extended);
    listing.child_subscribed = false;
    assert_eq!(line(|out| out.list(&listing)), format!("* LIST {plain} (\"OLDNAME\" (\"a b\"))"));
    let utf8 = written(NameEncoding::Utf8, |out| out.list(&Listing { old_name: None, ..listing }));
    assert_eq!(utf8, "* LIST (\\HasNoChildren \\Drafts) \"/\" \"Entwürfe\"\r\n");
    let values = [
        StatusValue::Messages(1),
        StatusValue::UidNext(uid(2)),
        StatusValue::Size(1 << 40),
        StatusValue::HighestModSeq(ModSeq::from_value(5)),
        StatusValue::MailboxId(MailboxId::from_bytes([0; 16])),
    ];
    assert_eq!(
        line(|out| out.mailbox_status(&mailbox("INBOX"), &values)),
        "* STATUS INBOX (MESSAGES 1 UIDNEXT 2 SIZE 1099511627776 HIGHESTMODSEQ 5 MAILBOXID (aaaaaaaaaaaaaaaaaaaaaaaaaa))"
    );
}

#[test]
fn what_was_found() {
    let mod_seq = Some(ModSeq::from_value(917));
    assert_eq!(line(|out| out.search([], mod_seq)), "* SEARCH");
    assert_eq!(line(|out| out.search([2, 5], mod_seq)), "* SEARCH 2 5 (MODSEQ 917)");
    assert_eq!(line(|out| out.sort([5, 2], None)), "* SORT 5 2");
    assert_eq!(line(|out| out.thread(b"")), "* THREAD");
    assert_eq!(line(|out| out.thread(b"(1 (2)(3))")), "* THREAD (1 (2)(3))");
    let (a1, found, none) = (tag("a]1"), set(&[2, 3, 9]), set(&[]));
    let mut answer = ESearch {
        tag: &a1,
        numbering: Numbering::Uid,
        min: Some(2),
        max: Some(9),
        all: Some(Found::Set(&found)),
        count: Some(3),
        partial: None,
        mod_seq,
    };
    assert_eq!(
        line(|out| out.esearch(&answer)),
        "* ESEARCH (TAG \"a]1\") UID MIN 2 MAX 9 COUNT 3 MODSEQ 917 ALL 2:3,9"
    );
    answer = ESearch { numbering: Numbering::Sequence, min: None, max: None, mod_seq: None, ..answer };
    answer = ESearch { all: Some(Found::Set(&none)), count: Some(0), ..answer };
    assert_eq!(line(|out| out.esearch(&answer)), "* ESEARCH (TAG \"a]1\") COUNT 0");
    let range = PartialRange { first: 1, last: 100, from_end: true };
    answer = ESearch { all: None, count: None, partial: Some((range, Found::Sorted(&[9, 2, 3]))), ..answer };
    assert_eq!(line(|out| out.esearch(&answer)), "* ESEARCH (TAG \"a]1\") PARTIAL (-1:-100 9,2:3)");
    answer.partial = Some((range, Found::Set(&none)));
    assert_eq!(line(|out| out.esearch(&answer)), "* ESEARCH (TAG \"a]1\") PARTIAL (-1:-100 NIL)");
}

#[test]
fn what_happened_to_messages() {
    assert_eq!(line(|out| out.exists(5)), "* 5 EXISTS");
    assert_eq!(line(|out| out.recent(0)), "* 0 RECENT");
    assert_eq!(line(|out| out.expunge(4)), "* 4 EXPUNGE");
    assert_eq!(line(|out| out.vanished(false, &set(&[1, 2]))), "* VANISHED 1:2");
    assert_eq!(line(|out| out.vanished(true, &set(&[7]))), "* VANISHED (EARLIER) 7");
    assert_eq!(written(NameEncoding::Utf8, |out| out.vanished(true, &set(&[]))), "");
}

#[test]
fn rows_of_fetch() {
    let flags = ["\\Seen", "$Junk"].map(|flag| flag.parse::<Keyword>().unwrap());
    let section = |text| Section { part: vec![1, 2], text };
    let text = written(NameEncoding::ModifiedUtf7, |out| {
        let mut row = out.fetch(12);
        row.uid(uid(5));
        row.flags(&flags);
        row.internal_date(0);
        row.size(2048);
        row.mod_seq(ModSeq::from_value(65_537));
        row.email_id("M1");
        row.thread_id(None);
        row.save_date(None);
        row.preview(Some("ä"));
        row.item("ENVELOPE", |out| put_nstring(out, None, false));
        row.section(&section(Some(SectionText::Mime)), Some(3), Some(4));
        row.octets(b"abcd");
        row.section(&section(None), None, None);
        row.binary(&[3], Some(0), Some(2), true);
        row.octets(b"\0x");
        row.binary(&[], None, Some(1), false);
        row.octets(b"y");
        row.binary_size(&[1], 7);
        row.literal("RFC822.TEXT", 0);
        row.end();
        out.uid_fetch(uid(9)).end();
    });
    assert_eq!(
        text,
        "* 12 FETCH (UID 5 FLAGS (\\Seen $Junk) INTERNALDATE \" 1-Jan-1970 00:00:00 +0000\" RFC822.SIZE 2048 \
         MODSEQ (65537) EMAILID (M1) THREADID NIL SAVEDATE NIL PREVIEW {2}\r\nä ENVELOPE NIL \
         BODY[1.2.MIME]<3> {4}\r\nabcd BODY[1.2] NIL BINARY[3]<0> ~{2}\r\n\0x BINARY[] {1}\r\ny \
         BINARY.SIZE[1] 7 RFC822.TEXT {0}\r\n)\r\n* 9 UIDFETCH ()\r\n"
    );
}

#[test]
fn a_row_can_be_sent_in_pieces() {
    let mut responses = Responses::new();
    let mut row = responses.fetch(1);
    row.literal("RFC822", 6);
    let mut sent = row.take();
    row.octets(b"abc");
    sent.extend(row.take());
    row.octets(b"def");
    row.end();
    sent.extend(responses.take());
    assert_eq!(sent, b"* 1 FETCH (RFC822 {6}\r\nabcdef)\r\n");
}

#[test]
fn sections_are_repeated_as_they_were_asked_for() {
    for text in [
        "[]",
        "[1]",
        "[1.2.MIME]",
        "[TEXT]",
        "[4.HEADER]",
        "[HEADER.FIELDS.NOT (A \"(b\")]",
        "[HEADER.FIELDS (NIL)]",
    ] {
        let command = format!("a FETCH 1 BODY{text}");
        let command = Command::parse(command.as_bytes(), NameEncoding::Utf8).unwrap();
        let CommandBody::Fetch(fetch) = command.body else { panic!() };
        let FetchItem::Section { section, .. } = &fetch.items[0] else { panic!() };
        let mut written = Vec::new();
        section.put(&mut written);
        assert_eq!(String::from_utf8(written).unwrap(), text.replace("NIL", "\"NIL\""));
    }
}

/// imap-codec reads what we write, where it knows it.
#[test]
fn another_reader_takes_them() {
    let flags = ["\\Seen", "$Junk"].map(|flag| flag.parse::<Keyword>().unwrap());
    let a1 = tag("a1");
    let name = mailbox("Entwürfe/a b");
    let attributes = [Attribute::HasChildren];
    let listing =
        Listing { attributes: &attributes, mailbox: &name, child_subscribed: false, old_name: None };
    let mut responses = Responses::new();
    responses.status(Some(&a1), Condition::Ok, Some(Code::UidNext(uid(3))), "done");
    responses.status(None, Condition::Bye, None, "");
    responses.status(None, Condition::Ok, Some(Code::PermanentFlags(&flags, true)), "x");
    responses.status(None, Condition::Ok, Some(Code::BadCharset(&["UTF-8"])), "x");
    responses.continuation("go on");
    responses.capability(&["IMAP4rev1", "IDLE"]);
    responses.enabled(&[Extension::Condstore]);
    responses.flags(&flags);
    responses.list(&listing);
    responses.lsub(&listing);
    responses.mailbox_status(&name, &[StatusValue::Messages(1), StatusValue::Unseen(1)]);
    responses.search([1, 2], None);
    responses.sort([2, 1], None);
    responses.thread(b"(1 (2)(3))");
    responses.exists(1);
    responses.recent(0);
    responses.expunge(1);
    let mut row = responses.fetch(1);
    row.uid(uid(1));
    row.flags(&flags);
    row.internal_date(1_000_000_000);
    row.size(3);
    row.section(&Section::default(), None, Some(3));
    row.octets(b"a\r\n");
    row.end();
    let bytes = responses.take();
    let mut rest = &bytes[..];
    let mut count = 0;
    while !rest.is_empty() {
        let (next, _) = ResponseCodec::default()
            .decode(rest)
            .unwrap_or_else(|error| panic!("{error:?} at {}", String::from_utf8_lossy(rest)));
        rest = next;
        count += 1;
    }
    assert_eq!(count, 18);
}
