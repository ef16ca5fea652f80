//! The file that says that a directory is a store, and which.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::StoreError;
use super::disk::{Disk, checksum};

/// One store; a copy of it has the same. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

pub(crate) const NAME: &str = "STORE";
/// The format of this program's stores. It changes only when an older program could not read them.
const FORMAT: u32 = 1;

pub(crate) fn write(dir: &Path, disk: &Disk, id: StoreId) -> Result<(), StoreError> {
    let text = format!("postmerge store\nformat {FORMAT}\nid {id}\n");
    let check: [u8; 8] = checksum(&[text.as_bytes()]);
    let last = format!("check {}\n", HEXLOWER.encode(&check));
    disk.replace(&dir.join(NAME), &[text.as_bytes(), last.as_bytes()])
}

pub(crate) fn read(dir: &Path) -> Result<StoreId, StoreError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StoreError::NotAStore { path: dir.to_owned() });
        }
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let damaged = |what| StoreError::damaged(&path, 0, what);
    if !text.starts_with("postmerge store\n") {
        return Err(damaged("the first line is not \"postmerge store\""));
    }
    let body = text.find("check ").map_or(&*text, |at| &text[..at]);
    if field("check") != Some(&*HEXLOWER.encode(&checksum::<8>(&[body.as_bytes()]))) {
        return Err(damaged("the check line does not match"));
    }
    let found: u32 =
        field("format").and_then(|format| format.parse().ok()).ok_or_else(|| damaged("no format"))?;
    if found > FORMAT {
        return Err(StoreError::Newer { path, found, known: FORMAT });
    }
    let id = field("id").and_then(|id| HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok());
    id.map(StoreId).ok_or_else(|| damaged("no id"))
}
