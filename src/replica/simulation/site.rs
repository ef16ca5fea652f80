//! A machine with a replica: its disk, its clock, and what others were told that it durably has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clients::Clients;
use super::{Outcome, set_time};
use crate::blob::BlobId;
use crate::mailbox::EntryId;
use crate::member::{PeerId, Role, SecretKey};
use crate::replica::{Replica, Subscription};
use crate::store::disk::fault::{self, Fault};
use crate::sync::{Digest, VersionVector};

/// What a site may not forget any more, whatever happens to its process and its power.
#[derive(Default)]
pub(super) struct Promised {
    /// Messages that whoever delivered them was told to be there.
    pub(super) entries: BTreeMap<EntryId, BlobId>,
    /// Changes that a peer was told to be known.
    pub(super) known: VersionVector,
    /// Messages of whose bodies a peer was told that they are held.
    pub(super) held: BTreeMap<EntryId, BlobId>,
    pub(super) held_at: Option<Digest>,
}

pub(super) struct Site {
    dir: PathBuf,
    pub(super) role: Role,
    pub(super) endpoint: PeerId,
    pub(super) fault: Arc<Fault>,
    /// Nothing while it is down.
    pub(super) replica: Option<Replica>,
    news: Arc<AtomicBool>,
    subscription: Option<Subscription>,
    /// By how many seconds its clock is wrong.
    pub(super) skew: i64,
    /// How often its store was copied back: what was promised before is void.
    pub(super) restored: u32,
    pub(super) promised: Promised,
    pub(super) clients: Clients,
    pub(super) backed_up: bool,
    /// Its backup was put back once already: it is a replica that somebody has succeeded.
    pub(super) backup_used: bool,
    /// It was put back twice to one backup.
    pub(super) lost: bool,
    /// It was switched off for good.
    pub(super) retired: bool,
    /// Its disk was full since it was opened.
    pub(super) was_full: bool,
}

impl Site {
    pub(super) fn new(dir: &Path, number: u8, role: Role) -> Site {
        let dir = dir.join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        Site {
            dir,
            role,
            endpoint: SecretKey::from_seed([number + 1; 32]).peer_id(),
            fault: Arc::new(Fault::after(u64::MAX)),
            replica: None,
            news: Arc::default(),
            subscription: None,
            skew: 0,
            restored: 0,
            promised: Promised::default(),
            clients: Clients::default(),
            backed_up: false,
            backup_used: false,
            lost: false,
            retired: false,
            was_full: false,
        }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Outside of the store; a backup does not bring it back.
    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn backup(&self) -> PathBuf {
        self.dir.join("backup")
    }

    /// What is opened, written and asked for the time from now on is this site's.
    pub(super) fn enter(&self, time: u64) {
        fault::set_current(Some(Arc::clone(&self.fault)));
        set_time(1_800_000_000 + (time / 1000) as i64 + self.skew);
    }

    pub(super) fn up(&mut self, replica: Replica) {
        let news = Arc::clone(&self.news);
        self.subscription = Some(replica.subscribe(move |_| news.store(true, Ordering::Relaxed)));
        self.replica = Some(replica);
    }

    pub(super) fn down(&mut self) {
        (self.subscription, self.replica, self.was_full) = (None, None, false);
        self.news.store(false, Ordering::Relaxed);
    }

    pub(super) fn has_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    /// Whether all is here that somebody was told to be here.
    pub(super) fn keeps_its_promises(&self, n: usize) -> Outcome {
        let Some(replica) = &self.replica else { return Ok(()) };
        let snapshot = replica.view().unwrap();
        let known = snapshot.tables().vector().unwrap();
        for (author, seq) in &self.promised.known {
            let here = known.get(author).copied().unwrap_or(0);
            promise!(
                here >= *seq,
                "P6 site {n} lost changes {here} to {seq} of {author}, which it had acknowledged"
            );
        }
        for (entry, blob) in &self.promised.entries {
            let located = snapshot.locate(*entry).unwrap();
            promise!(located.is_some(), "P6 site {n} lost message {entry}, which it had accepted");
            let wanted = located.is_some_and(|located| located.place.is_some());
            promise!(!wanted || replica.has_body(*blob).unwrap(), "P6 site {n} lost the body of {entry}");
        }
        for (entry, blob) in &self.promised.held {
            let wanted = snapshot.locate(*entry).unwrap().is_some_and(|located| located.place.is_some());
            let here = replica.has_body(*blob).unwrap();
            promise!(!wanted || here, "P6 site {n} has no body of {entry}, which it had said to hold");
        }
        Ok(())
    }
}
