//! What happened, in words and as JSON: the same for every verb that tells of the past.

use std::collections::BTreeMap;

use postmerge::mailbox::{MailboxId, MailboxName, ReplicaId, Stamp};
use postmerge::replica::{Act, Decision, Deed, Kind, Replica};
use postmerge::uid::Burn;
use serde_json::{Value, json};

use super::select;
use crate::text::{self, count};

/// Names of what there ever was.
pub(super) struct Names {
    mailboxes: BTreeMap<MailboxId, MailboxName>,
    replicas: BTreeMap<ReplicaId, String>,
}

impl Names {
    pub(super) fn read(replica: &Replica) -> anyhow::Result<Names> {
        let peers = replica.peers()?.into_iter();
        let replicas = peers.map(|peer| (peer.member.replica, peer.member.name.to_string())).collect();
        Ok(Names { mailboxes: replica.mailbox_names()?, replicas })
    }

    /// A mailbox by its present or last name.
    pub(super) fn mailbox(&self, id: MailboxId) -> String {
        self.mailboxes.get(&id).map_or_else(|| format!("mailbox {id}"), ToString::to_string)
    }

    /// A replica by its name, or by the start of its id if it is no member.
    pub(super) fn replica(&self, id: ReplicaId) -> String {
        self.replicas.get(&id).cloned().unwrap_or_else(|| id.to_string()[..8].to_owned())
    }

    /// Who made a change, and when by its own clock.
    pub(super) fn stamp(&self, stamp: &Stamp) -> Value {
        json!({
            "change": stamp.change.to_string(),
            "replica": stamp.replica.to_string(),
            "name": self.replicas.get(&stamp.replica),
            "seq": stamp.seq,
            "time": stamp.time,
        })
    }

    /// What somebody did, as in "moved 3 messages from INBOX to Work".
    pub(super) fn words(&self, deed: &Deed, number: u64) -> String {
        let (messages, uids) = (count(number, "message"), count(number, "UID"));
        let name = |id: &MailboxId| self.mailbox(*id);
        match deed {
            Deed::Arrived { mailbox } => format!("added {messages} to {}", name(mailbox)),
            Deed::Imported { mailbox } => format!("imported {messages} into {}", name(mailbox)),
            Deed::Moved { from, to } if from == to => format!("moved {messages} within {}", name(to)),
            Deed::Moved { from, to } => format!("moved {messages} from {} to {}", name(from), name(to)),
            Deed::BroughtBack { to } => format!("brought {messages} back to {}", name(to)),
            Deed::Expunged { from: Some(from) } => format!("expunged {messages} from {}", name(from)),
            Deed::Expunged { from: None } => format!("expunged {messages} once more"),
            Deed::Kept { mailbox } => format!("kept {messages} in {}", name(mailbox)),
            Deed::Flag { keyword, set: true } => format!("set {keyword} on {messages}"),
            Deed::Flag { keyword, set: false } => format!("cleared {keyword} on {messages}"),
            Deed::Made { name, .. } => format!("made mailbox {name}"),
            Deed::Renamed { from, to, .. } => format!("renamed mailbox {from} to {to}"),
            Deed::Deleted { mailbox } => format!("deleted mailbox {}", name(mailbox)),
            Deed::Subscribed { mailbox, set: true } => format!("subscribed to {}", name(mailbox)),
            Deed::Subscribed { mailbox, set: false } => {
                format!("ended the subscription to {}", name(mailbox))
            }
            Deed::SpecialUse { mailbox, special_use: Some(special_use) } => {
                format!("gave {} the use {}", name(mailbox), special_use.name())
            }
            Deed::SpecialUse { mailbox, special_use: None } => {
                format!("took the special use from {}", name(mailbox))
            }
            Deed::Renumbered { mailbox } => format!("gave {} another UIDVALIDITY", name(mailbox)),
            Deed::Claimed { mailbox } => format!("gave out {uids} in {}", name(mailbox)),
            Deed::PassedOver { mailbox } => {
                format!("went past without knowing, to higher UIDs in {}", name(mailbox))
            }
            Deed::Burned { mailbox } => format!("burned {uids} in {}", name(mailbox)),
        }
    }

    /// The same for programs: `what`, and what belongs to it.
    pub(super) fn deed(&self, deed: &Deed) -> Value {
        let name = |id: &MailboxId| self.mailbox(*id);
        match deed {
            Deed::Arrived { mailbox } => json!({"what": "added", "mailbox": name(mailbox)}),
            Deed::Imported { mailbox } => json!({"what": "imported", "mailbox": name(mailbox)}),
            Deed::Moved { from, to } => json!({"what": "moved", "from": name(from), "to": name(to)}),
            Deed::BroughtBack { to } => json!({"what": "brought back", "to": name(to)}),
            Deed::Expunged { from } => json!({"what": "expunged", "from": from.as_ref().map(name)}),
            Deed::Kept { mailbox } => json!({"what": "kept", "mailbox": name(mailbox)}),
            Deed::Flag { keyword, set } => {
                json!({"what": if *set { "set" } else { "cleared" }, "flag": keyword.to_string()})
            }
            Deed::Made { name, .. } => json!({"what": "made mailbox", "mailbox": name}),
            Deed::Renamed { from, to, .. } => json!({"what": "renamed mailbox", "from": from, "to": to}),
            Deed::Deleted { mailbox } => json!({"what": "deleted mailbox", "mailbox": name(mailbox)}),
            Deed::Subscribed { mailbox, set } => {
                json!({"what": if *set { "subscribed" } else { "unsubscribed" }, "mailbox": name(mailbox)})
            }
            Deed::SpecialUse { mailbox, special_use } => {
                let special_use = special_use.map(|special_use| special_use.name());
                json!({"what": "special use", "mailbox": name(mailbox), "special_use": special_use})
            }
            Deed::Renumbered { mailbox } => json!({"what": "new UIDVALIDITY", "mailbox": name(mailbox)}),
            Deed::Claimed { mailbox } => json!({"what": "claimed", "mailbox": name(mailbox)}),
            Deed::PassedOver { mailbox } => json!({"what": "passed over", "mailbox": name(mailbox)}),
            Deed::Burned { mailbox } => json!({"what": "burned", "mailbox": name(mailbox)}),
        }
    }

    /// A decision in a line for what it is about, and one for each who had a part in it.
    pub(super) fn decision(&self, decision: &Decision) -> Vec<String> {
        let messages = count(decision.messages.len() as u64, "message");
        let uids: Vec<_> = decision.uids.iter().copied().collect();
        let mailbox = decision.mailbox.map_or_else(String::new, |id| self.mailbox(id));
        let burned = format!("UID {} of {mailbox} burned", select::listed(&uids));
        let head = match decision.kind {
            Kind::Moves => format!("{messages} moved to several mailboxes at once"),
            Kind::MoveAgainstExpunge => format!("{messages} moved and expunged at once: not expunged"),
            Kind::KeepAgainstExpunge => {
                format!("{messages} expunged while \\Deleted was cleared: not expunged")
            }
            Kind::Flag => format!("{messages} with a flag set and cleared at once"),
            Kind::Name => format!("mailbox {mailbox} renamed twice at once"),
            Kind::NameClash => format!("mailbox {mailbox} lost its name to another one"),
            Kind::Attribute => format!("mailbox {mailbox} changed in two ways at once"),
            Kind::Uid(Burn::Contested) => format!("{burned}: two claimed it for different messages"),
            Kind::Uid(Burn::Spanned) => format!("{burned}: another server had gone past it"),
            Kind::Uid(Burn::Recorded) => {
                format!("{burned}: a merge hid its message or would have brought it back")
            }
        };
        let number = match decision.kind {
            Kind::Uid(_) => decision.uids.len(),
            _ => decision.messages.len(),
        };
        let act = |act: &Act| {
            let verdict = match (decision.kind, act.won) {
                (Kind::Uid(_), _) => "",
                (_, true) => "holds: ",
                (_, false) => "lost: ",
            };
            let (what, who) = (self.words(&act.deed, number as u64), self.replica(act.stamp.replica));
            let (change, when) = (act.stamp.change.short(), text::instant(act.stamp.time));
            format!("  {verdict}{who} {what} ({change}, {when})")
        };
        std::iter::once(head).chain(decision.acts.iter().map(act)).collect()
    }

    /// The same for programs.
    pub(super) fn decision_json(&self, decision: &Decision) -> Value {
        let act = |act: &Act| {
            let mut all = self.stamp(&act.stamp);
            all["did"] = self.deed(&act.deed);
            all["won"] = act.won.into();
            all
        };
        json!({
            "kind": kind(decision.kind),
            "mailbox": decision.mailbox.map(|id| self.mailbox(id)),
            "uids": decision.uids.iter().map(|uid| uid.value()).collect::<Vec<_>>(),
            "entries": decision.messages.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "acts": decision.acts.iter().map(act).collect::<Vec<_>>(),
        })
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Moves => "moves",
        Kind::MoveAgainstExpunge => "move against expunge",
        Kind::KeepAgainstExpunge => "keep against expunge",
        Kind::Flag => "flag",
        Kind::Name => "name",
        Kind::NameClash => "name clash",
        Kind::Attribute => "attribute",
        Kind::Uid(Burn::Contested) => "UID contested",
        Kind::Uid(Burn::Spanned) => "UID passed over",
        Kind::Uid(Burn::Recorded) => "UID burned by record",
    }
}
