//! What happens: two servers have the same mail, lose each other, both go on, and meet again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use postmerge::mailbox::{EntryId, Keyword, MailboxName, Uid};
use postmerge::member::{MemberName, Role};
use postmerge::net::Node;
use postmerge::replica::{ImportMessage, Invitation, Replica};
use postmerge::uid::KeywordChange;
use tokio::runtime::Handle;

use super::client::{Roaming, Told, View, place};
use super::imap::Imap;
use super::mail::{self, Mail};
use super::side::{Side, found};
use crate::endpoint;

/// What the story left behind.
pub(super) struct Story {
    /// The two servers.
    pub(super) sides: [Side; 2],
    /// The client that goes from one to the other.
    pub(super) roaming: Roaming,
    /// What each showed before the connection was cut, before it came back, and at the end.
    pub(super) views: [[View; 2]; 3],
    /// What each showed when the new mail had arrived.
    pub(super) arrived: [View; 2],
    /// What each caching client was told once the connection was back.
    pub(super) told: [Vec<Told>; 2],
    /// A mail client at each, which was in IDLE when the connection came back.
    pub(super) imap: [Imap; 2],
    /// Subjects of all messages there ever were.
    pub(super) subjects: BTreeMap<EntryId, String>,
    /// The message that was expunged.
    pub(super) expunged: EntryId,
    /// Whether both have the same, by their heads.
    pub(super) same_digest: bool,
}

/// Most that any wait may take; on loopback it is milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets it happen; `say` is given each step.
pub(super) fn tell(dir: &Path, runtime: &Handle, say: &mut dyn FnMut(&str)) -> anyhow::Result<Story> {
    let mut a = found(&dir.join("a"), "server A")?;
    let messages = import(&a.replica)?;
    say(&format!("Server A imports {messages} messages in 5 mailboxes."));
    let address = a.connect(runtime)?;
    let mut b = join(&mut a, dir, runtime, address.clone())?;
    say(&format!("A listens on {address} and invites a second server. B joins and syncs over QUIC."));
    wait("the first sync", || Ok(a.replica.digest()? == b.replica.digest()?))?;
    let mut roaming = Roaming::default();
    look(&mut a, &mut b, &mut roaming)?;
    let whole = [a.seen.clone(), b.seen.clone()];
    say(
        "Both show the same mailboxes, messages, flags and UIDs. One client caches A, another B, a third roams.",
    );
    b.disconnect(runtime)?;
    say("\nThe connection is cut.");
    let expunged = arrive(&mut a, &mut b, &mut roaming, say)?;
    let arrived = [a.seen.clone(), b.seen.clone()];
    apart(&a, &b, expunged, say)?;
    look(&mut a, &mut b, &mut roaming)?;
    let split = [a.seen.clone(), b.seen.clone()];
    let mut imap = [Imap::wait_at(&a.replica, Some("QRESYNC"))?, Imap::wait_at(&b.replica, None)?];
    say("  A mail program at each selects INBOX over IMAP and waits in IDLE; the one of A knows QRESYNC.");
    say("\nThe connection is back.");
    b.connect(runtime)?;
    settle(&a.replica, &b.replica)?;
    let told = look(&mut a, &mut b, &mut roaming)?;
    for client in &mut imap {
        client.wake()?;
    }
    let healed = [a.seen.clone(), b.seen.clone()];
    let same_digest = a.replica.digest()? == b.replica.digest()?;
    b.disconnect(runtime)?;
    a.disconnect(runtime)?;
    let mut subjects = BTreeMap::new();
    for view in whole.iter().chain(&split).chain(&healed) {
        for entry in view.values().flat_map(|sight| sight.messages.values().map(|(entry, _)| *entry)) {
            subjects.entry(entry).or_insert(subject(&a.replica, entry)?);
        }
    }
    subjects.insert(expunged, mail::subject(Mail::number(NEW[1][0]).raw));
    let views = [whole, split, healed];
    Ok(Story { sides: [a, b], roaming, views, arrived, told, imap, subjects, expunged, same_digest })
}

/// New mail while apart: two messages each.
const NEW: [[&str; 2]; 2] = [["08", "35"], ["28", "03"]];

fn import(replica: &Replica) -> anyhow::Result<usize> {
    let is_new = |mail: &&Mail| !NEW.concat().iter().any(|number| mail.file.starts_with(number));
    let mut mails: Vec<&Mail> = mail::ALL.iter().filter(is_new).collect();
    mails.sort_by_key(|mail| mail.date());
    for mailbox in ["INBOX", "Archive", "Lists", "Drafts", "Junk"] {
        let mut importer = replica.import(&mailbox.parse()?, None, false, false)?;
        for (number, mail) in mails.iter().filter(|mail| mail.mailbox() == mailbox).enumerate() {
            let unseen = number % 3 == 2 || mail.file.starts_with("02");
            let keywords = if unseen { Vec::new() } else { vec![Keyword::seen()] };
            let keywords = keywords.into_iter().collect();
            importer.add(ImportMessage { internal_date: mail.date(), keywords, uid: None }, mail.raw)?;
        }
        importer.finish()?;
    }
    Ok(mails.len())
}

fn join(a: &mut Side, dir: &Path, runtime: &Handle, address: String) -> anyhow::Result<Side> {
    let inviter = a.replica.peers()?.into_iter().find(|peer| peer.oneself).context("A is a member")?;
    a.replica.announce(vec![address.clone()])?;
    let ticket = a.replica.invite(&Invitation {
        role: Role::Server,
        addresses: vec![address],
        endpoint: inviter.member.endpoint,
        valid_for: 3600,
    })?;
    let key = endpoint::new_key()?;
    let replica = Replica::prepare_join(&dir.join("b"), None, &ticket)?;
    let node = Node::new(replica.clone(), Side::bind(&key, runtime)?);
    runtime.block_on(node.join(&ticket, MemberName::new("server B")?, true, &mut |_| {}))?;
    drop(node);
    let mut b = Side::new(replica, key);
    b.connect(runtime)?;
    Ok(b)
}

/// Each gets mail that the other does not know of. Gives the message that will be expunged.
fn arrive(
    a: &mut Side,
    b: &mut Side,
    roaming: &mut Roaming,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<EntryId> {
    let mut last = None;
    for (side, name, numbers) in [(&*a, "A", NEW[0]), (&*b, "B", NEW[1])] {
        for number in numbers.iter().rev() {
            let mail = Mail::number(number);
            let added = side.replica.append(
                &MailboxName::inbox(),
                mail.raw,
                Default::default(),
                Some(mail.date()),
            )?;
            let uid = added.uid.map_or(0, Uid::value);
            say(&format!("  {name} gets new mail: {} (UID {uid})", mail::subject(mail.raw)));
            last = Some(added.entry);
        }
    }
    // What was shown can never be taken back.
    look(a, b, roaming)?;
    say("  Both are read, so each has shown its UIDs to its clients.");
    last.context("new mail arrived")
}

/// People at both sides do things that do not agree.
fn apart(a: &Side, b: &Side, expunged: EntryId, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let inbox = MailboxName::inbox();
    let (_, uid) = place(&b.seen, expunged).context("B shows its new mail")?;
    let seen = |side: &Side| side.replica.mailbox(&inbox).map(|mailbox| mailbox.seen());
    b.replica.expunge(seen(b)?, &[Uid::new(uid).context("a UID is never 0")?])?;
    say(&format!("  B's client expunges UID {uid}: {}", mail::subject(Mail::number(NEW[1][0]).raw)));
    let of = |number: &str| -> anyhow::Result<[Uid; 2]> {
        let entry = entry_of(&a.replica, Mail::number(number))?;
        let uid = |side: &Side| {
            let (_, uid) = place(&side.seen, entry).context("the message is in INBOX")?;
            Uid::new(uid).context("a UID is never 0")
        };
        Ok([uid(a)?, uid(b)?])
    };
    let moved = of("05")?;
    a.replica.move_to(seen(a)?, &[moved[0]], &"Archive".parse()?)?;
    b.replica.move_to(seen(b)?, &[moved[1]], &"Lists".parse()?)?;
    let subject = mail::subject(Mail::number("05").raw);
    say(&format!("  A's client moves UID {} to Archive, B's moves it to Lists: {subject}", moved[0]));
    let flag = |side: &Side, uid: Uid, set: &[&str], clear: &[&str]| -> anyhow::Result<()> {
        let parse =
            |words: &[&str]| words.iter().map(|word| word.parse::<Keyword>()).collect::<Result<_, _>>();
        let change = KeywordChange::Edit { set: parse(set)?, clear: parse(clear)? };
        side.replica.store_keywords(seen(side)?, &[uid], &change, None)?;
        Ok(())
    };
    let both = of("01")?;
    flag(a, both[0], &["\\Flagged"], &[])?;
    flag(b, both[1], &["\\Answered", "holiday"], &[])?;
    say(&format!("  A flags UID {}, B answers it and gives it the keyword holiday.", both[0]));
    let other = of("02")?;
    flag(a, other[0], &["\\Seen", "$Important"], &[])?;
    flag(b, other[1], &["\\Seen", "\\Flagged"], &[])?;
    say(&format!("  Both read UID {}; A finds it important, B flags it.", other[0]));
    Ok(())
}

fn entry_of(replica: &Replica, mail: Mail) -> anyhow::Result<EntryId> {
    let blob = postmerge::blob::BlobId::of(mail.raw);
    let shown = replica.messages(&MailboxName::inbox(), Uid::FIRST, usize::MAX)?;
    let found = shown.into_iter().find(|message| message.blob == blob);
    Ok(found.context("the message is in INBOX")?.entry)
}

/// Both clients look, and the third at both servers.
fn look(a: &mut Side, b: &mut Side, roaming: &mut Roaming) -> anyhow::Result<[Vec<Told>; 2]> {
    let told = [a.read()?, b.read()?];
    roaming.poll(&a.seen);
    roaming.poll(&b.seen);
    Ok(told)
}

/// Waits until both have the same and nobody has a UID left to give.
fn settle(a: &Replica, b: &Replica) -> anyhow::Result<()> {
    let same = || Ok(a.digest()? == b.digest()? && a.status()?.owed_bodies + b.status()?.owed_bodies == 0);
    loop {
        wait("the sync", same)?;
        let before = a.digest()?;
        a.settle(None)?;
        wait("the sync of new UIDs", same)?;
        b.settle(None)?;
        wait("the sync of new UIDs", same)?;
        if a.digest()? == before {
            return Ok(());
        }
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > PATIENCE {
            bail!("{what} did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn subject(replica: &Replica, entry: EntryId) -> anyhow::Result<String> {
    let mut raw = Vec::new();
    // What only the other side had and expunged was never here.
    if let Ok(mut body) = replica.body(entry) {
        std::io::Read::read_to_end(&mut body, &mut raw)?;
    }
    Ok(mail::subject(&raw))
}
