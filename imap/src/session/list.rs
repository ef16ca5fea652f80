//! LIST, LSUB and NAMESPACE: which mailboxes there are (RFC 9051, section 6.3.9; RFC 5258, 5819, 6154).

use std::collections::BTreeMap;

use postmerge::mailbox::MailboxName;
use postmerge::replica::Snapshot;
use postmerge::uid::Mailbox;

use super::Session;
use super::done::{Done, Failed};
use crate::grammar::{Attribute, List, Listing, Lsub};

/// A name in the hierarchy: a mailbox, or only what mailboxes below it imply.
#[derive(Default)]
struct Node {
    mailbox: Option<Mailbox>,
    has_children: bool,
    /// Whether a mailbox anywhere below is subscribed.
    subscribed_below: bool,
}

impl Node {
    fn is_subscribed(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.subscribed)
    }

    fn has_special_use(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.special_use.is_some())
    }

    fn attributes(&self, tell_subscribed: bool) -> Vec<Attribute> {
        let mut attributes = Vec::with_capacity(4);
        match &self.mailbox {
            // The older attribute is for clients that do not know the newer.
            None => attributes.extend([Attribute::NonExistent, Attribute::NoSelect]),
            Some(mailbox) => attributes.extend(mailbox.special_use.map(Attribute::Use)),
        }
        attributes.push(if self.has_children { Attribute::HasChildren } else { Attribute::HasNoChildren });
        attributes.extend((tell_subscribed && self.is_subscribed()).then_some(Attribute::Subscribed));
        attributes
    }
}

/// Every name, with those that only mailboxes below imply. INBOX comes first.
fn hierarchy(snapshot: &Snapshot) -> Result<BTreeMap<(bool, MailboxName), Node>, Failed> {
    let key = |name: MailboxName| (name != MailboxName::inbox(), name);
    let mut nodes: BTreeMap<(bool, MailboxName), Node> = BTreeMap::new();
    for mailbox in snapshot.mailboxes()? {
        for above in above(&mailbox.name) {
            let above = nodes.entry(key(above)).or_default();
            above.has_children = true;
            above.subscribed_below |= mailbox.subscribed;
        }
        let name = mailbox.name.clone();
        nodes.entry(key(name)).or_default().mailbox = Some(mailbox);
    }
    Ok(nodes)
}

/// The names of the levels above a name, outermost first.
fn above(name: &MailboxName) -> impl Iterator<Item = MailboxName> + '_ {
    name.as_str().match_indices('/').filter_map(|(at, _)| name.as_str()[..at].parse().ok())
}

impl Session {
    pub(super) fn list(&mut self, list: &List) -> Result<Done, Failed> {
        if list.asks_separator {
            self.out.list_root();
            return Ok(Done::ok("the separator"));
        }
        let snapshot = self.replica()?.snapshot()?;
        let select = list.select;
        for ((_, name), node) in hierarchy(&snapshot)? {
            if !list.patterns.iter().any(|pattern| pattern.matches(&name)) {
                continue;
            }
            let wanted = (!select.subscribed || node.is_subscribed())
                && (!select.special_use || node.has_special_use());
            let child_subscribed = select.recursive_match && node.subscribed_below;
            if !wanted && !child_subscribed {
                continue;
            }
            let attributes = node.attributes(list.returns.subscribed || select.subscribed);
            let mailbox = &name;
            self.out.list(&Listing { attributes: &attributes, mailbox, child_subscribed, old_name: None });
            if let Some(mailbox) = node.mailbox.filter(|_| wanted && !list.returns.status.is_empty()) {
                self.put_status(&snapshot, &mailbox, &list.returns.status)?;
            }
        }
        Ok(Done::ok("these are the mailboxes"))
    }

    pub(super) fn lsub(&mut self, lsub: &Lsub) -> Result<Done, Failed> {
        let mailboxes = self.replica()?.snapshot()?.mailboxes()?;
        let mut told: BTreeMap<MailboxName, &[Attribute]> = BTreeMap::new();
        for mailbox in mailboxes.into_iter().filter(|mailbox| mailbox.subscribed) {
            if lsub.pattern.matches(&mailbox.name) {
                told.insert(mailbox.name, &[]);
            } else {
                // RFC 3501, section 6.3.9: of a name that `%` cuts, the part that matches is told.
                for above in above(&mailbox.name).filter(|above| lsub.pattern.matches(above)) {
                    told.entry(above).or_insert(&[Attribute::NoSelect]);
                }
            }
        }
        for (mailbox, attributes) in &told {
            self.out.lsub(&Listing { attributes, mailbox, child_subscribed: false, old_name: None });
        }
        Ok(Done::ok("these are the subscribed mailboxes"))
    }
}
