//! Names of folders on disk, read and made.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::mutf7;
use super::scan::SkipReason;
use crate::mailbox::MailboxName;

/// Longest directory name of a folder; below the 255 of file systems, so that a `~2` still fits.
const MAX_DIR: usize = 240;

/// The mailbox of the Maildir++ directory `.A.B` below the mailbox `parent` (none: the root).
pub(super) fn of_maildir_plus_plus(
    parent: Option<&MailboxName>,
    dir: &[u8],
) -> Result<MailboxName, SkipReason> {
    // A level can hold neither separator: the file system keeps out the one, the layout the other.
    join(parent, &text(dir.strip_prefix(b".").unwrap_or(dir))?.replace('.', "/"))
}

/// The mailbox of the plain directory `dir` below `parent`.
pub(super) fn of_directory(parent: Option<&MailboxName>, dir: &[u8]) -> Result<MailboxName, SkipReason> {
    join(parent, &text(dir)?)
}

/// Modified UTF-7 as Dovecot writes it, else UTF-8 as its UTF-8 option and others do.
pub(super) fn text(bytes: &[u8]) -> Result<String, SkipReason> {
    match mutf7::decode(bytes) {
        Ok(text) => Ok(text),
        Err(_) => std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| SkipReason::Spelling),
    }
}

fn join(parent: Option<&MailboxName>, rest: &str) -> Result<MailboxName, SkipReason> {
    let full = parent.map_or_else(|| rest.to_owned(), |parent| format!("{parent}/{rest}"));
    full.parse().map_err(SkipReason::MailboxName)
}

/// The directory that holds `name` in a Maildir++ tree, and whether it stands for exactly that name; "" is the
/// root. A level with a dot cannot be written, since the dot separates levels, and a directory's name has a
/// maximum length: such a mailbox gets a name near its own that is not in `taken`.
pub(super) fn to_maildir_plus_plus(name: &MailboxName, taken: &BTreeSet<String>) -> (String, bool) {
    if name.is_inbox() {
        return (String::new(), true);
    }
    let exact = name.as_str();
    let mut wanted = exact.replace('.', "_");
    while mutf7::encode(&wanted).len() >= MAX_DIR {
        wanted.pop();
    }
    let mut count = 1;
    let mut written = wanted.trim_end_matches('/').to_owned();
    loop {
        let dir = format!(".{}", mutf7::encode(&written).replace('/', "."));
        if !taken.contains(&dir) {
            return (dir, written == exact);
        }
        count += 1;
        written = format!("{}~{count}", wanted.trim_end_matches('/'));
    }
}

/// The directory that holds `name` in a tree of directories, not in `taken`. A level that would be hidden or one of a
/// Maildir's own directories gets an underscore in front.
pub(super) fn to_directories(name: &MailboxName, taken: &BTreeSet<PathBuf>) -> PathBuf {
    let level = |level: &str| {
        let clash = level.starts_with('.') || ["cur", "new", "tmp"].contains(&level);
        mutf7::encode(&if clash { format!("_{level}") } else { level.to_owned() })
    };
    let wanted: PathBuf = name.as_str().split('/').map(level).collect();
    let numbered = |count: u32| PathBuf::from(format!("{}~{count}", wanted.display()));
    let free = |dir: &PathBuf| !taken.contains(dir);
    std::iter::once(wanted.clone()).chain((2..).map(numbered)).find(free).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &[u8]) -> Option<String> {
        of_maildir_plus_plus(None, dir).ok().map(|name| name.as_str().to_owned())
    }

    #[test]
    fn directories_are_read() {
        for (dir, name) in [
            (&b".Sent"[..], Some("Sent")),
            (b".Lists.rust", Some("Lists/rust")),
            (b".Entw&APw-rfe", Some("Entwürfe")),
            ("Entwürfe".as_bytes(), Some("Entwürfe")),
            (b".Tom & Jerry", Some("Tom & Jerry")),
            (b".inbox.a", Some("INBOX/a")),
            (b".\xff", None),
            (b".a..b", None),
            (b".a\nb", None),
        ] {
            assert_eq!(read(dir).as_deref(), name, "{}", dir.escape_ascii());
        }
    }

    #[test]
    fn directories_are_made() {
        let mut taken = BTreeSet::new();
        for (name, dir, exact) in [
            ("INBOX", "", true),
            ("Lists/Entwürfe", ".Lists.Entw&APw-rfe", true),
            ("a_b", ".a_b", true),
            ("a.b", ".a_b~2", false),
        ] {
            let (made, is_exact) = to_maildir_plus_plus(&name.parse().unwrap(), &taken);
            assert_eq!((&*made, is_exact), (dir, exact));
            taken.insert(made);
        }
        let long: MailboxName = "ü".repeat(250).parse().unwrap();
        let (made, exact) = to_maildir_plus_plus(&long, &taken);
        assert!(made.len() <= MAX_DIR && !exact);
        assert!(read(made.as_bytes()).is_some());
    }
}
