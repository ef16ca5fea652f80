//! imap-codec as a second opinion: what it takes as a command, we take too, and as the same.

use super::parse;
use super::properties::mutated;
use super::valid::VALID;
use crate::grammar::{Command, CommandBody, Fetch, MessageSet, Numbering, SequenceSet};
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::command::{Command as TheirCommand, CommandBody as Theirs};
use imap_codec::imap_types::fetch::MacroOrMessageDataItemNames as Items;
use imap_codec::imap_types::mailbox::Mailbox;
use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet as TheirSet};
use proptest::prelude::*;

fn decode(line: &[u8]) -> Option<TheirCommand<'_>> {
    let (rest, command) = CommandCodec::default().decode(line).ok()?;
    rest.is_empty().then_some(command)
}

/// What imap-codec may take although we do not, for a reason.
fn may_be_refused(command: &TheirCommand<'_>) -> bool {
    match &command.body {
        // The reader hands them out in pieces; or not offered by this server.
        Theirs::Append { .. }
        | Theirs::GetQuota { .. }
        | Theirs::GetQuotaRoot { .. }
        | Theirs::SetQuota { .. } => true,
        // Algorithms that this server does not know.
        Theirs::Compress { .. } | Theirs::Thread { .. } => true,
        // An empty response is "=", and nothing after the mechanism is no response.
        Theirs::Authenticate { initial_response: Some(response), .. } => response.declassify().is_empty(),
        // It does not look at what VANISHED needs, nor at the 63 bits of mod-sequences.
        Theirs::Fetch { modifiers, .. } => !modifiers.is_empty(),
        Theirs::Select { parameters, .. } | Theirs::Examine { parameters, .. } => !parameters.is_empty(),
        Theirs::Store { modifiers, .. } => !modifiers.is_empty(),
        _ => false,
    }
}

fn their_numbers(set: &TheirSet) -> Vec<(u32, u32)> {
    let number = |end: &SeqOrUid| match end {
        SeqOrUid::Value(number) => number.get(),
        SeqOrUid::Asterisk => u32::MAX,
    };
    let range = |range: &Sequence| match range {
        Sequence::Single(one) => (number(one), number(one)),
        Sequence::Range(from, to) => (number(from), number(to)),
    };
    set.0.as_ref().iter().map(range).collect()
}

fn our_numbers(set: &SequenceSet) -> Vec<(u32, u32)> {
    set.ranges().iter().map(|(from, to)| (from.resolve(u32::MAX), to.resolve(u32::MAX))).collect()
}

fn same_messages(ours: &MessageSet, uid: Numbering, theirs: &TheirSet, their_uid: bool) {
    assert_eq!(uid == Numbering::Uid, their_uid);
    let MessageSet::Numbers(ours) = ours else { panic!("they know no $") };
    assert_eq!(our_numbers(ours), their_numbers(theirs));
}

fn same_mailbox(ours: &crate::grammar::MailboxArg, theirs: &Mailbox<'_>) {
    let theirs = match theirs {
        Mailbox::Inbox => "INBOX".to_owned(),
        Mailbox::Other(other) => String::from_utf8_lossy(other.as_ref()).into_owned(),
    };
    // Names that need decoding or changing are not compared: it keeps them as they are spelled.
    if let Ok(ours) = ours
        && !theirs.contains('&')
        && theirs.is_ascii()
        && !theirs.to_ascii_uppercase().starts_with("INBOX/")
    {
        assert_eq!(ours.as_str(), theirs.strip_suffix('/').unwrap_or(&theirs));
    }
}

fn same_fetch(ours: &Fetch, theirs: &Items<'_>) {
    let items = match theirs {
        Items::Macro(known) => known.expand().len(),
        Items::MessageDataItemNames(items) => items.len(),
    };
    assert_eq!(ours.items.len(), items);
}

/// Compares what both can express.
fn same(ours: &Command, theirs: &TheirCommand<'_>) {
    assert_eq!(ours.tag.as_str(), theirs.tag.as_ref());
    match (&ours.body, &theirs.body) {
        (CommandBody::Select(a), Theirs::Select { mailbox, .. })
        | (CommandBody::Examine(a), Theirs::Examine { mailbox, .. }) => same_mailbox(&a.mailbox, mailbox),
        (CommandBody::Create { mailbox: a, .. }, Theirs::Create { mailbox })
        | (CommandBody::Delete(a), Theirs::Delete { mailbox })
        | (CommandBody::Subscribe(a), Theirs::Subscribe { mailbox })
        | (CommandBody::Unsubscribe(a), Theirs::Unsubscribe { mailbox }) => same_mailbox(a, mailbox),
        (CommandBody::Rename { from: a, to: b }, Theirs::Rename { from, to }) => {
            same_mailbox(a, from);
            same_mailbox(b, to);
        }
        (CommandBody::Status { mailbox: a, .. }, Theirs::Status { mailbox, .. }) => same_mailbox(a, mailbox),
        (CommandBody::Login { user, password }, Theirs::Login { username, password: theirs }) => {
            assert_eq!(user, username.as_ref());
            assert_eq!(password.as_bytes(), theirs.declassify().as_ref());
        }
        (CommandBody::Fetch(a), Theirs::Fetch { sequence_set, macro_or_item_names, uid, .. }) => {
            same_messages(&a.messages, a.numbering, sequence_set, *uid);
            same_fetch(a, macro_or_item_names);
        }
        (CommandBody::Store(a), Theirs::Store { sequence_set, flags, uid, .. }) => {
            same_messages(&a.messages, a.numbering, sequence_set, *uid);
            assert_eq!(a.flags.len(), flags.len());
        }
        (CommandBody::Copy { numbering, messages, to }, Theirs::Copy { sequence_set, mailbox, uid })
        | (CommandBody::Move { numbering, messages, to }, Theirs::Move { sequence_set, mailbox, uid }) => {
            same_messages(messages, *numbering, sequence_set, *uid);
            same_mailbox(to, mailbox);
        }
        (CommandBody::Search(a), Theirs::Search { criteria, uid, .. }) => {
            assert_eq!(a.numbering == Numbering::Uid, *uid);
            assert_eq!(a.criteria.keys.len(), criteria.as_ref().len());
        }
        (CommandBody::Sort(a), Theirs::Sort { sort_criteria, search_criteria, uid, .. }) => {
            assert_eq!(a.numbering == Numbering::Uid, *uid);
            assert_eq!(a.by.len(), sort_criteria.as_ref().len());
            assert_eq!(a.criteria.keys.len(), search_criteria.as_ref().len());
        }
        (CommandBody::Expunge { uids: Some(uids) }, Theirs::ExpungeUid { sequence_set }) => {
            same_messages(uids, Numbering::Uid, sequence_set, true);
        }
        _ => {}
    }
}

#[test]
fn commands_of_the_table_mean_the_same() {
    let mut known = 0;
    for entry in VALID.iter().flat_map(|(_, commands)| *commands) {
        let text = entry.split(" => ").next().unwrap_or(entry);
        let line = format!("{text}\r\n");
        if let Some(theirs) = decode(line.as_bytes()) {
            same(&parse(text.as_bytes()).unwrap(), &theirs);
            known += 1;
        }
    }
    assert!(known >= 100, "imap-codec knows {known} of the commands");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_it_takes_we_take(text in mutated()) {
        let line = [&text, &b"\r\n"[..]].concat();
        if let Some(theirs) = decode(&line) {
            match parse(&text) {
                Ok(ours) => same(&ours, &theirs),
                Err(_) if may_be_refused(&theirs) => {}
                Err(error) => panic!("{}: {error}: {theirs:?}", String::from_utf8_lossy(&text)),
            }
        }
    }
}
