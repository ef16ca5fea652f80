//! What came of the story: each message before and after, what was burned, and whether the promises held.

use std::collections::BTreeMap;
use std::io::Read as _;

use postmerge::blob::BlobId;
use postmerge::mailbox::{EntryId, Uid};
use postmerge::uid::Burn;
use serde::Serialize;

use super::client::{Broken, Told, place};
use super::imap::Heard;
use super::story::Story;

/// Where a message is: mailbox and UID.
pub(super) type Place = Option<(String, u32)>;

/// A message that something happened to.
#[derive(Serialize)]
pub(super) struct Affected {
    pub(super) subject: String,
    pub(super) entry: String,
    /// On A and B, when the connection came back; of the expunged message, before that.
    pub(super) before: [Place; 2],
    /// On A and B, at the end.
    pub(super) after: [Place; 2],
    pub(super) flags: Vec<String>,
}

/// A UID that is never used again, and why.
#[derive(Serialize)]
pub(super) struct BurnedUid {
    pub(super) mailbox: String,
    pub(super) uid: u32,
    pub(super) subject: String,
    pub(super) rule: &'static str,
    pub(super) why: &'static str,
}

/// Whether one promise held.
#[derive(Serialize)]
pub(super) struct Promise {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) broken: Vec<String>,
}

/// The facts.
#[derive(Serialize)]
pub(super) struct Verdict {
    pub(super) messages: Vec<Affected>,
    pub(super) burned: Vec<BurnedUid>,
    /// What the client of A and the client of B were told.
    pub(super) told: [Vec<Told>; 2],
    /// What mail clients at A and at B heard over IMAP.
    pub(super) imap: [Heard; 2],
    pub(super) equal: bool,
    pub(super) promises: Vec<Promise>,
}

const PROMISES: [(&str, &str); 6] = [
    ("P1", "a UID never denotes two messages"),
    ("P2", "new UIDs are above UIDNEXT, and none comes back"),
    ("P3", "both sides show the same"),
    ("P4", "a client that roams between them touches no wrong message"),
    ("P5", "a UID changes only where the merge must change it"),
    ("P6", "no message is lost"),
];

impl Verdict {
    pub(super) fn of(story: &Story) -> anyhow::Result<Verdict> {
        let [_, split, healed] = &story.views;
        let equal = healed[0] == healed[1] && story.same_digest;
        let messages = affected(story);
        let burned = burned(story)?;
        let mut broken: Vec<Broken> = story.sides.iter().flat_map(|side| side.broken()).cloned().collect();
        broken.extend(story.roaming.broken.iter().cloned());
        for (client, shown) in story.imap.iter().zip(healed) {
            client.check(shown, &mut broken);
        }
        if !equal {
            broken.push(("P3", "the two sides differ".into()));
        }
        for (side, view) in split.iter().enumerate() {
            for (name, sight) in view {
                for (uid, (entry, _)) in &sight.messages {
                    let after = place(&healed[side], *entry);
                    let changed = after.is_some_and(|(now, at)| now == name && at != *uid);
                    if changed && !burned.iter().any(|burned| burned.mailbox == *name && burned.uid == *uid) {
                        broken.push(("P5", format!("UID {uid} of {name} changed without need")));
                    }
                }
            }
        }
        lost(story, &mut broken)?;
        let promise = |(name, what)| {
            let broken = broken.iter().filter(|broken| broken.0 == name).map(|broken| broken.1.clone());
            Promise { name, what, broken: broken.collect() }
        };
        let promises = PROMISES.into_iter().map(promise).collect();
        let [a, b] = &story.imap;
        let imap = [a.heard.clone(), b.heard.clone()];
        Ok(Verdict { messages, burned, told: story.told.clone(), imap, equal, promises })
    }

    pub(super) fn held(&self) -> bool {
        self.promises.iter().all(|promise| promise.broken.is_empty())
    }
}

/// The messages that were not left alone, by where they end up.
fn affected(story: &Story) -> Vec<Affected> {
    let [whole, split, healed] = &story.views;
    let arrived = &story.arrived;
    let mut rows = Vec::new();
    for (entry, subject) in &story.subjects {
        let at = |views: &[super::client::View; 2]| {
            [0, 1].map(|side| place(&views[side], *entry).map(|(name, uid)| (name.to_owned(), uid)))
        };
        let flags = |view: &super::client::View| {
            let (name, uid) = place(view, *entry)?;
            Some(view[name].messages[&uid].1.clone())
        };
        let same = at(whole) == at(arrived)
            && at(arrived) == at(split)
            && at(split) == at(healed)
            && flags(&whole[0]) == flags(&healed[0]);
        if !same {
            let flags = flags(&healed[0]).unwrap_or_default().iter().map(ToString::to_string).collect();
            let (mut before, after) = (at(split), at(healed));
            if *entry == story.expunged {
                before = at(arrived);
            }
            let entry = entry.to_string();
            rows.push(Affected { subject: subject.clone(), entry, before, after, flags });
        }
    }
    rows.sort_by_key(|row| (row.after.clone(), row.before.clone()));
    rows
}

fn burned(story: &Story) -> anyhow::Result<Vec<BurnedUid>> {
    let mut names = BTreeMap::new();
    let mut all = super::side::Burned::new();
    for side in &story.sides {
        names.extend(side.replica.mailboxes()?.into_iter().map(|mailbox| (mailbox.id, mailbox.name)));
        for (uid, burned) in side.burned() {
            // A side that heard of the burn before it heard of the claim does not know whose it was.
            let known = story.subjects.contains_key(&burned.0);
            if known || !all.contains_key(&uid) {
                all.insert(uid, burned);
            }
        }
    }
    let row = |((mailbox, uid), (entry, rule))| {
        let (rule, why) = match rule {
            Burn::Contested => ("3a", "two messages claimed it"),
            Burn::Spanned => ("3b", "the other side had counted past it without knowing of it"),
            Burn::Recorded => ("3c", "its message ended up elsewhere, or had gone"),
        };
        let mailbox = names.get(&mailbox).map_or_else(|| mailbox.to_string(), ToString::to_string);
        let subject = story.subjects.get(&entry).cloned().unwrap_or_default();
        BurnedUid { mailbox, uid, subject, rule, why }
    };
    Ok(all.into_iter().map(row).collect())
}

/// Every message that was not expunged is on both sides, once, with a body that is the one it had.
fn lost(story: &Story, broken: &mut Vec<Broken>) -> anyhow::Result<()> {
    for (entry, subject) in story.subjects.iter().filter(|(entry, _)| **entry != story.expunged) {
        for (side, view) in story.sides.iter().zip(&story.views[2]) {
            let copies = view.values().flat_map(|sight| sight.messages.values());
            if copies.filter(|(shown, _)| shown == entry).count() != 1 {
                broken.push(("P6", format!("{subject} is not there exactly once")));
                continue;
            }
            if !is_whole(side, *entry)? {
                broken.push(("P6", format!("the body of {subject} is not what it was")));
            }
        }
    }
    if story.views[2].iter().any(|view| place(view, story.expunged).is_some()) {
        broken.push(("P2", "the expunged message came back".into()));
    }
    Ok(())
}

fn is_whole(side: &super::side::Side, entry: EntryId) -> anyhow::Result<bool> {
    let mut body = Vec::new();
    side.replica.body(entry)?.read_to_end(&mut body)?;
    let blob = BlobId::of(&body);
    for mailbox in side.replica.mailboxes()? {
        let shown = side.replica.messages(&mailbox.name, Uid::FIRST, usize::MAX)?;
        if let Some(message) = shown.iter().find(|message| message.entry == entry) {
            return Ok(message.blob == blob);
        }
    }
    Ok(false)
}
