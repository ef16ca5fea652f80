//! Who this replica is: the file with its key, and the note outside of the store that tells a copied store.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use super::ReplicaError;
use crate::mailbox::{AccountId, ReplicaId, UidValidity};
use crate::member::SecretKey;
use crate::mutation::{Mutation, planted};
use crate::store::InstanceId;

const FILE: &str = "identity";
const CHECK: &str = "check";
const SUCCESSOR: &str = "successor";
/// Successions that are followed; a ring of them, which only damage can make, must end.
const MAX_SUCCESSORS: usize = 1000;

/// Account, replica, its key, and which directory they were made for. In a file that only the user can read.
pub(super) struct Identity {
    pub(super) account: AccountId,
    pub(super) replica: ReplicaId,
    pub(super) key: SecretKey,
    /// The lock file of the store that this was written for: a copied store has another one.
    pub(super) instance: InstanceId,
    /// The membership record by which a restored store became this replica. Identity and record come into force together,
    /// when this file is replaced.
    pub(super) succession: Option<Vec<u8>>,
}

impl Identity {
    pub(super) fn read(dir: &Path) -> Result<Identity, ReplicaError> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map(Zeroizing::new);
        let text = text.map_err(|source| ReplicaError::Io { action: "read", path: path.clone(), source })?;
        Identity::parse(&text).ok_or(ReplicaError::Identity { path })
    }

    fn parse(text: &str) -> Option<Identity> {
        // At the start of a line only: a value may hold the word.
        let at = text.rfind(&format!("\n{CHECK} "))? + 1;
        if text[at..] != check_line(&text[..at]) {
            return None;
        }
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let bytes = |name| BASE32_NOPAD.decode(field(name)?.to_ascii_uppercase().as_bytes()).ok();
        let seed = Zeroizing::new(bytes("key")?);
        Some(Identity {
            account: field("account")?.parse().ok()?,
            replica: field("replica")?.parse().ok()?,
            key: SecretKey::from_seed(seed.as_slice().try_into().ok()?),
            instance: InstanceId(bytes("instance")?.try_into().ok()?),
            succession: bytes("succession"),
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), ReplicaError> {
        Identity::write_text(dir, &self.text())
    }

    /// Writes what [`Identity::text`] gave.
    pub(super) fn write_text(dir: &Path, text: &str) -> Result<(), ReplicaError> {
        replace(&dir.join(FILE), text.as_bytes())
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// The file's text.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        let base32 = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
        let seed = Zeroizing::new(base32(self.key.seed()));
        let instance = base32(&self.instance.0);
        let (account, replica) = (self.account, self.replica);
        write!(text, "account {account}\nreplica {replica}\nkey {}\ninstance {instance}\n", *seed)
            .expect("a string takes text");
        if let Some(record) = &self.succession {
            writeln!(text, "succession {}", base32(record)).expect("a string takes text");
        }
        let check = check_line(&text);
        text.push_str(&check);
        text
    }
}

/// The last line: eight bytes of a hash of the lines before it. It tells damage, not forgery.
fn check_line(text: &str) -> String {
    let check = BASE32_NOPAD.encode(&blake3::hash(text.as_bytes()).as_bytes()[..8]).to_ascii_lowercase();
    format!("{CHECK} {check}\n")
}

/// What is remembered outside of the store, so that a store which was copied back is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outside {
    /// The number of this replica's last change, or of one shortly before.
    pub(super) seq: u64,
    /// The highest UIDVALIDITY of any mailbox, never too low.
    pub(super) validity: UidValidity,
}

/// The file that holds [`Outside`]; nothing if the caller gave no place for it.
pub(super) struct Watch(Option<PathBuf>);

impl Watch {
    /// `state` is a directory outside of the store; one file for each account and replica in it.
    pub(super) fn new(state: Option<&Path>, identity: &Identity) -> Watch {
        Watch(state.map(|dir| dir.join(format!("{}.watch", identity.replica))))
    }

    /// The note of the replica that goes on in the place of this one.
    pub(super) fn of_successor(&self, identity: &Identity) -> Watch {
        Watch::new(self.0.as_deref().and_then(Path::parent), identity)
    }

    /// What this replica showed, and its successors after it: a backup may be put back more than once.
    pub(super) fn read(&self) -> Option<Outside> {
        let mut path = self.0.clone()?;
        let mut outside = Watch::note(&path)?;
        for _ in 0..MAX_SUCCESSORS {
            let Ok(successor) = std::fs::read_to_string(path.with_extension(SUCCESSOR)) else { break };
            path.set_file_name(format!("{}.watch", successor.trim()));
            if let Some(later) = Watch::note(&path) {
                outside.validity = outside.validity.max(later.validity);
            }
        }
        Some(outside)
    }

    fn note(path: &Path) -> Option<Outside> {
        let text = std::fs::read_to_string(path).ok()?;
        let (seq, validity) = text.trim().split_once(' ')?;
        Some(Outside { seq: seq.parse().ok()?, validity: UidValidity::new(validity.parse().ok()?)? })
    }

    /// Names the replica that goes on in the place of this one, before it shows anything; what it is to rise above stays in
    /// this one's note, should the successor never write one.
    pub(super) fn hand_over(&self, successor: ReplicaId, outside: Outside) -> Result<(), ReplicaError> {
        self.write(outside)?;
        let Some(path) = &self.0 else { return Ok(()) };
        replace(&path.with_extension(SUCCESSOR), format!("{successor}\n").as_bytes())
    }

    pub(super) fn write(&self, outside: Outside) -> Result<(), ReplicaError> {
        let Some(path) = self.0.as_ref().filter(|_| !planted(Mutation::NoteForgotten)) else { return Ok(()) };
        if let Some(dir) = path.parent() {
            let made = std::fs::create_dir_all(dir);
            made.map_err(|source| ReplicaError::Io { action: "make", path: dir.into(), source })?;
        }
        replace(path, format!("{} {}\n", outside.seq, outside.validity).as_bytes())
    }
}

/// Replaces a small file at once and durably; only the user can read it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReplicaError> {
    let tmp = path.with_extension("tmp");
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&tmp, path)?;
        match path.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    crate::store::disk::replace_beside(write).map_err(|source| ReplicaError::Io {
        action: "write",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let instance = BASE32_NOPAD.decode(b"AACHECKCHECKAAAAAAAAAAAAAA").unwrap();
        Identity {
            account: AccountId::from_bytes([1; 16]),
            replica: ReplicaId::from_bytes([2; 16]),
            key: SecretKey::from_seed([3; 32]),
            instance: InstanceId(instance.try_into().unwrap()),
            succession: Some(vec![4; 40]),
        }
    }

    #[test]
    fn a_value_may_hold_the_name_of_the_last_line() {
        let text = identity().text();
        assert!(text.contains("instance aacheckcheck"));
        let read = Identity::parse(&text).expect("it reads back");
        assert_eq!(*read.text(), *text);
    }

    #[test]
    fn damage_is_told_in_any_line_and_so_is_one_that_is_missing() {
        let text = identity().text();
        for line in text.lines() {
            let without = text.replace(&format!("{line}\n"), "");
            assert!(Identity::parse(&without).is_none(), "without {line}");
            let last = if line.ends_with('a') { 'b' } else { 'a' };
            let damaged = text.replace(line, &format!("{}{last}", &line[..line.len() - 1]));
            assert!(Identity::parse(&damaged).is_none(), "{damaged}");
        }
    }
}
