//! A server and an observer: what they remember beside the document, and the clients that look at them.

use std::collections::{BTreeMap, BTreeSet};

use crate::Shown;
use crate::account::{Change, Deed, Document, Id, Lane, Log, Mailbox, Placement, Rules, Run, Uid};

type Broken = Option<&'static str>;

/// A client that believes everything it was ever told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    pub told: BTreeMap<(Mailbox, Uid), Id>,
    gone: BTreeSet<(Mailbox, Uid)>,
    next: Vec<Uid>,
}

impl Client {
    fn new(mailboxes: u8) -> Client {
        Client { next: vec![1; usize::from(mailboxes)], ..Client::default() }
    }

    fn look(&mut self, mailbox: Mailbox, messages: &BTreeMap<Uid, Id>, next: Uid, broken: &mut Broken) {
        let known = &mut self.next[usize::from(mailbox)];
        for (uid, message) in messages {
            match self.told.insert((mailbox, *uid), *message) {
                Some(was) if was != *message => _ = broken.get_or_insert("P1: a UID is two messages"),
                Some(_) if self.gone.contains(&(mailbox, *uid)) => {
                    broken.get_or_insert("P2: a vanished UID comes back");
                }
                None if uid < known => _ = broken.get_or_insert("P2: a UID is new below UIDNEXT"),
                _ => {}
            }
            if *uid >= next {
                broken.get_or_insert("P2: a UID is not below UIDNEXT");
            }
        }
        if next < *known {
            broken.get_or_insert("P2: UIDNEXT fell");
        }
        *known = next;
        let here = self.told.keys().filter(|(at, uid)| *at == mailbox && !messages.contains_key(uid));
        self.gone.extend(here);
    }
}

/// A server: what it knows, and what it must remember of what it showed (rule 3c).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub known: Vec<u8>,
    /// UIDs that are known here and were, at some moment, not shown.
    gone: BTreeSet<(Mailbox, Uid)>,
    /// Burns to be written before the mailbox is shown.
    pending: BTreeSet<(Mailbox, Uid)>,
    shown: BTreeMap<Placement, (Mailbox, Uid)>,
    pub client: Client,
}

impl Server {
    pub fn new(authors: u8, mailboxes: u8) -> Server {
        Server {
            known: vec![0; usize::from(authors)],
            gone: BTreeSet::new(),
            pending: BTreeSet::new(),
            shown: BTreeMap::new(),
            client: Client::new(mailboxes),
        }
    }

    fn document<'a>(&'a self, log: &'a Log, rules: Rules) -> Document<'a> {
        Document { log, known: &self.known, rules }
    }

    pub fn visible(&self, log: &Log, rules: Rules) -> Vec<(Id, Mailbox)> {
        let document = self.document(log, rules);
        let place = |message: Id| document.places(message).0.map(|(mailbox, _)| (message, mailbox));
        document.messages().into_iter().filter_map(place).collect()
    }

    /// Every message and the UID it is shown under.
    pub fn picture(&self, log: &Log, rules: Rules) -> Shown {
        let document = self.document(log, rules);
        let mut all = Vec::new();
        for message in document.messages() {
            if let (Some((mailbox, placement)), _) = document.places(message) {
                all.push((message, mailbox, self.shown.get(&placement).map(|(_, uid)| *uid)));
            }
        }
        all
    }

    pub fn hear(&mut self, log: &Log, known: &[u8], rules: Rules, broken: &mut Broken) {
        self.known.iter_mut().zip(known).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
        self.pass(log, rules, broken);
    }

    /// What a user does, with the claim for it in the same change (rule 1).
    pub fn act(&mut self, log: &mut Log, n: u8, deed: Deed, lane: Lane, rules: Rules, broken: &mut Broken) {
        let by = Id { author: n, seq: self.known[usize::from(n)] };
        let claimed = match deed {
            Deed::Deliver(mailbox) => Some((mailbox, Placement { message: by, by })),
            Deed::Move(message, mailbox) => Some((mailbox, Placement { message, by })),
            Deed::Expunge(_) | Deed::Settle => None,
        };
        let document = self.document(log, rules);
        let runs = claimed.map(|(mailbox, placement)| claim(&document, mailbox, &[placement], lane));
        let runs = runs.into_iter().collect();
        self.write(log, n, deed, runs, Vec::new(), rules, broken);
    }

    #[expect(clippy::too_many_arguments, reason = "a change has as many parts")]
    fn write(
        &mut self,
        log: &mut Log,
        n: u8,
        deed: Deed,
        runs: Vec<Run>,
        burns: Vec<(Mailbox, Uid)>,
        rules: Rules,
        broken: &mut Broken,
    ) {
        let clock = self.document(log, rules).clock() + 1;
        log[usize::from(n)].push(Change { past: self.known.clone(), clock, deed, runs, burns });
        self.known[usize::from(n)] += 1;
        self.pass(log, rules, broken);
    }

    /// Burns that are due, and claims for what has none, until nothing is due (rules 1 and 3c).
    pub fn settle(
        &mut self,
        log: &mut Log,
        n: u8,
        lane: Lane,
        mailboxes: u8,
        rules: Rules,
        broken: &mut Broken,
    ) {
        loop {
            let document = self.document(log, rules);
            let burns: Vec<(Mailbox, Uid)> = self.pending.iter().copied().collect();
            let waiting = (0..mailboxes).map(|mailbox| (mailbox, self.waiting(&document, mailbox)));
            let claims = waiting.filter(|(_, waiting)| !waiting.is_empty());
            let runs: Vec<Run> =
                claims.map(|(mailbox, waiting)| claim(&document, mailbox, &waiting, lane)).collect();
            if burns.is_empty() && runs.is_empty() {
                return;
            }
            self.write(log, n, Deed::Settle, runs, burns, rules, broken);
        }
    }

    /// Messages of a mailbox that have no UID yet.
    fn waiting(&self, document: &Document<'_>, mailbox: Mailbox) -> Vec<Placement> {
        let waits = |message: Id| {
            let (at, placement) = document.places(message).0?;
            (at == mailbox && !self.shown.contains_key(&placement)).then_some(placement)
        };
        document.messages().into_iter().filter_map(waits).collect()
    }

    fn can_be_shown(&self, document: &Document<'_>, mailbox: Mailbox) -> bool {
        self.pending.iter().all(|(at, _)| *at != mailbox) && self.waiting(document, mailbox).is_empty()
    }

    pub fn is_settled(&self, log: &Log, mailboxes: u8, rules: Rules) -> bool {
        let document = self.document(log, rules);
        (0..mailboxes).all(|mailbox| self.can_be_shown(&document, mailbox))
    }

    /// Rules 3c and 4, after each batch of changes.
    fn pass(&mut self, log: &Log, rules: Rules, broken: &mut Broken) {
        let known = self.known.clone();
        let document = Document { log, known: &known, rules };
        let mut shown = BTreeMap::new();
        for message in document.messages() {
            let (now, hidden) = document.places(message);
            for (mailbox, placement) in hidden.iter().filter(|_| rules.recorded) {
                self.pending
                    .extend(document.claims(*mailbox, *placement).into_iter().map(|uid| (*mailbox, uid)));
            }
            let Some((mailbox, placement)) = now else { continue };
            let Some(uid) = document.claims(mailbox, placement).pop() else { continue };
            let was = self.shown.get(&placement) == Some(&(mailbox, uid));
            if self.gone.contains(&(mailbox, uid)) && !was && rules.recorded {
                self.pending.insert((mailbox, uid));
            } else {
                shown.insert(placement, (mailbox, uid));
            }
        }
        for (placement, (mailbox, uid)) in &self.shown {
            let other = shown.get(placement).is_some_and(|now| now != &(*mailbox, *uid));
            if other && !document.is_burned(*mailbox, *uid) {
                broken.get_or_insert("P5: a UID changed and was not burned");
            }
        }
        let now: BTreeSet<(Mailbox, Uid)> = shown.values().copied().collect();
        for mailbox in 0..self.client.next.len() as u8 {
            for uid in document.all_claims(mailbox).into_keys() {
                match now.contains(&(mailbox, uid)) {
                    true => _ = self.gone.remove(&(mailbox, uid)),
                    false => _ = self.gone.insert((mailbox, uid)),
                }
            }
        }
        self.pending.retain(|(mailbox, uid)| !document.is_burned(*mailbox, *uid));
        self.shown = shown;
    }

    pub fn look(&mut self, log: &Log, mailboxes: u8, rules: Rules, broken: &mut Broken) {
        let known = self.known.clone();
        let document = Document { log, known: &known, rules };
        for mailbox in
            (0..mailboxes).filter(|mailbox| self.can_be_shown(&document, *mailbox)).collect::<Vec<_>>()
        {
            let here = self.shown.iter().filter(|(_, (at, _))| *at == mailbox);
            let messages: BTreeMap<Uid, Id> = here.map(|(stay, (_, uid))| (*uid, stay.message)).collect();
            self.client.look(mailbox, &messages, document.top(mailbox) + 1, broken);
        }
    }
}

/// Rule 2.
fn claim(document: &Document<'_>, mailbox: Mailbox, waiting: &[Placement], lane: Lane) -> Run {
    let base = document.top(mailbox);
    let mut last = base;
    let claims = waiting.iter().map(|placement| {
        last = lane.next(last);
        (last, *placement)
    });
    let claims = claims.collect();
    Run { mailbox, base, claims }
}

/// An observer: private UIDs, consecutive from 1, for each stay that it sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observer {
    pub known: Vec<u8>,
    visible: BTreeSet<(Mailbox, Placement)>,
    private: BTreeMap<Placement, Uid>,
    next: Vec<Uid>,
    client: Client,
}

impl Observer {
    pub fn new(authors: u8, mailboxes: u8) -> Observer {
        Observer {
            known: vec![0; usize::from(authors)],
            visible: BTreeSet::new(),
            private: BTreeMap::new(),
            next: vec![1; usize::from(mailboxes)],
            client: Client::new(mailboxes),
        }
    }

    pub fn hear(&mut self, log: &Log, known: &[u8], rules: Rules, mailboxes: u8) {
        self.known.iter_mut().zip(known).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
        let document = Document { log, known: &self.known, rules };
        let place = |message: Id| document.places(message).0;
        self.visible =
            document.messages().into_iter().filter_map(place).filter(|(at, _)| *at < mailboxes).collect();
        let visible: BTreeSet<Placement> = self.visible.iter().map(|(_, stay)| *stay).collect();
        self.private.retain(|stay, _| visible.contains(stay));
    }

    pub fn look(&mut self, mailboxes: u8, broken: &mut Broken) {
        for (mailbox, stay) in &self.visible {
            let next = &mut self.next[usize::from(*mailbox)];
            self.private.entry(*stay).or_insert_with(|| std::mem::replace(next, *next + 1));
        }
        for mailbox in 0..mailboxes {
            let here = self.visible.iter().filter(|(at, _)| *at == mailbox);
            let messages = here.map(|(_, stay)| (self.private[stay], stay.message)).collect();
            self.client.look(mailbox, &messages, self.next[usize::from(mailbox)], broken);
        }
    }
}
