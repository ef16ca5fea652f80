//! When each peer was talked to last, and what it had then: what there is to say of peers that are away.
//!
//! It is kept in a small file of the store's directory, written without syncing it: at the beginning and the end of a
//! conversation, and at most once a minute in between. Nothing depends on it. A crash may lose the last minute, a backup does
//! not have it, and a file that cannot be read is as good as none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Replica, ReplicaError, lock, now};
use crate::mailbox::ReplicaId;
use crate::sync::VersionVector;

const FILE: &str = "contacts";
const HEAD: &str = "postmerge contacts 1\n";
const END: &str = "end\n";
/// How often it is written while a conversation goes on: a daemon that is killed forgets no more than that.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The last contact with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// When it was, in seconds since 1970. While a conversation goes on, when the peer last said what it has.
    pub at: i64,
    /// Changes that are here and that the peer has not acknowledged.
    pub unacknowledged: u64,
    /// Changes that the peer said it has and that are not here.
    pub missing: u64,
}

#[derive(Default)]
struct Heard {
    at: i64,
    /// What the peer said that it durably has.
    has: VersionVector,
}

/// The last contact with each peer.
#[derive(Default)]
pub(super) struct Contacts {
    /// Where it is kept; nowhere if the store is only read, or closed.
    path: Option<PathBuf>,
    peers: BTreeMap<ReplicaId, Heard>,
}

impl Contacts {
    /// Those of a store.
    pub(super) fn read(dir: &Path, read_only: bool) -> Contacts {
        let path = dir.join(FILE);
        let peers = std::fs::read_to_string(&path).ok().and_then(|text| parse(&text)).unwrap_or_default();
        Contacts { path: (!read_only).then_some(path), peers }
    }

    /// From now on nothing is written: the directory may be somebody else's.
    pub(super) fn close(&mut self) {
        self.path = None;
    }

    /// What a peer said that it durably has.
    pub(super) fn said(&self, peer: ReplicaId) -> Option<&VersionVector> {
        self.peers.get(&peer).map(|heard| &heard.has)
    }

    /// When a peer was met last, in seconds since 1970.
    pub(super) fn met(&self, peer: ReplicaId) -> Option<i64> {
        self.peers.get(&peer).map(|heard| heard.at)
    }

    fn hear(&mut self, peer: ReplicaId, has: &VersionVector) {
        let heard = self.peers.entry(peer).or_default();
        heard.at = now();
        for (replica, seq) in has {
            let known = heard.has.entry(*replica).or_default();
            *known = (*known).max(*seq);
        }
    }

    fn keep(&self) {
        let Some(path) = &self.path else { return };
        let write = || {
            use std::io::Write as _;
            let text = self.text();
            // In place: to replace a file, or to cut it off, has some file systems wait for the disk. Whatever mixture of old
            // and new a reader may find does not have its end where it belongs.
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        if let Err(error) = write() {
            tracing::debug!(path = %path.display(), %error, "the last contacts cannot be kept");
        }
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (peer, Heard { at, has }) in &self.peers {
            write!(text, "{peer} {at}").expect("a string takes text");
            for (replica, seq) in has {
                write!(text, " {replica}:{seq}").expect("a string takes text");
            }
            text.push('\n');
        }
        text + END
    }
}

fn parse(text: &str) -> Option<BTreeMap<ReplicaId, Heard>> {
    let lines = text.strip_prefix(HEAD)?.strip_suffix(END)?.lines();
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let (peer, at) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let place = |field: &str| {
            let (replica, seq) = field.split_once(':')?;
            Some((replica.parse().ok()?, seq.parse().ok()?))
        };
        Some((peer, Heard { at, has: fields.map(place).collect::<Option<_>>()? }))
    };
    lines.map(line).collect()
}

/// A conversation with a peer that was accepted; what it says is kept when this is dropped, at the latest.
pub(super) struct Meeting {
    replica: Replica,
    peer: ReplicaId,
    kept: Duration,
}

impl Meeting {
    pub(super) fn begin(replica: &Replica, peer: ReplicaId, has: &VersionVector, time: Duration) -> Meeting {
        let mut contacts = lock(&replica.0.contacts);
        contacts.hear(peer, has);
        contacts.keep();
        Meeting { replica: replica.clone(), peer, kept: time }
    }

    /// The peer said what it has.
    pub(super) fn hear(&mut self, has: &VersionVector, time: Duration) {
        let mut contacts = lock(&self.replica.0.contacts);
        contacts.hear(self.peer, has);
        if time >= self.kept + KEEP_EVERY {
            self.kept = time;
            contacts.keep();
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let mut contacts = lock(&self.replica.0.contacts);
        contacts.hear(self.peer, &VersionVector::new());
        contacts.keep();
    }
}

impl Replica {
    /// The last contact with each peer there ever was one with, as far as it is remembered.
    pub fn contacts(&self) -> Result<BTreeMap<ReplicaId, Contact>, ReplicaError> {
        let here = self.view()?.tables().vector()?;
        let beyond = |these: &VersionVector, those: &VersionVector| {
            let more = |(replica, seq): (&ReplicaId, &u64)| {
                seq.saturating_sub(those.get(replica).copied().unwrap_or_default())
            };
            // A peer may say anything.
            these.iter().map(more).fold(0, u64::saturating_add)
        };
        let contact = |(peer, heard): (&ReplicaId, &Heard)| {
            let (unacknowledged, missing) = (beyond(&here, &heard.has), beyond(&heard.has, &here));
            (*peer, Contact { at: heard.at, unacknowledged, missing })
        };
        Ok(lock(&self.0.contacts).peers.iter().map(contact).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId::from_bytes([1; 16]);
    const OTHER: ReplicaId = ReplicaId::from_bytes([2; 16]);

    #[test]
    fn what_is_kept_is_read_back_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut contacts = Contacts::read(dir.path(), false);
        contacts.hear(PEER, &VersionVector::from([(PEER, 7), (OTHER, 3)]));
        contacts.hear(PEER, &VersionVector::from([(PEER, 5), (OTHER, 4)]));
        contacts.hear(OTHER, &VersionVector::new());
        contacts.keep();
        // It may have been longer.
        let longer = std::fs::OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap();
        longer.set_len(10_000).unwrap();
        contacts.keep();
        let read = Contacts::read(dir.path(), true);
        assert_eq!(read.text(), contacts.text());
        assert_eq!(
            read.peers[&PEER].has,
            VersionVector::from([(PEER, 7), (OTHER, 4)]),
            "nothing is forgotten"
        );
        let path = dir.path().join(FILE);
        let text = contacts.text();
        let mixed = format!("{text}{}", &text[text.len() / 2..]);
        for damaged in
            ["", "postmerge contacts 2\nend\n", &text[..text.len() - 1], &mixed, &text.replace(':', ";")]
        {
            std::fs::write(&path, damaged).unwrap();
            assert!(Contacts::read(dir.path(), false).peers.is_empty(), "{damaged:?}");
        }
    }

    #[test]
    fn a_store_that_is_only_read_or_closed_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut closed = Contacts::read(dir.path(), false);
        closed.close();
        for mut contacts in [Contacts::read(dir.path(), true), closed] {
            contacts.hear(PEER, &VersionVector::new());
            contacts.keep();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
