//! Dovecot's `subscriptions` file, both versions: one mailbox a line.

use std::collections::BTreeSet;

use super::folder_name;
use super::list::{LineError, LineProblem, lines};
use super::scan::Layout;
use crate::mailbox::MailboxName;

/// The mailboxes listed, and the lines that name none.
pub(super) fn parse(bytes: &[u8], layout: Layout) -> (BTreeSet<MailboxName>, Vec<LineError>) {
    let mut names = BTreeSet::new();
    let mut bad = Vec::new();
    let version_2 = bytes.starts_with(b"V\t2\n");
    for (index, line) in lines(bytes).enumerate() {
        if line.is_empty() || version_2 && index == 0 {
            continue;
        }
        match name(line, layout, version_2) {
            Some(name) => drop(names.insert(name)),
            None => bad.push(LineProblem::MailboxName.at(index)),
        }
    }
    (names, bad)
}

/// Version 2 separates levels by tabs, version 1 by the layout's own separator: `.` in Maildir++, where no
/// level can hold a `/`, and `/` in a tree of directories, where a dot may be part of a level.
fn name(line: &[u8], layout: Layout, version_2: bool) -> Option<MailboxName> {
    if version_2 {
        let levels: Result<Vec<String>, _> =
            line.split(|byte| *byte == b'\t').map(folder_name::text).collect();
        return levels.ok()?.join("/").parse().ok();
    }
    let text = folder_name::text(line).ok()?;
    match layout {
        Layout::MaildirPlusPlus => text.replace('.', "/").parse().ok(),
        Layout::Directories => text.parse().ok(),
    }
}

/// The file's bytes for Maildir++ directory names, in version 1, which every Dovecot reads.
pub(super) fn to_bytes<'a>(dirs: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    for dir in dirs {
        out.extend(dir.strip_prefix('.').unwrap_or("INBOX").as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        for bytes in [
            &b"INBOX\nLists.rust\nEntw&APw-rfe\n"[..],
            b"INBOX\nLists/rust\nEntw\xc3\xbcrfe\n",
            b"V\t2\n\nINBOX\nLists\trust\nEntw&APw-rfe\n",
        ] {
            let (names, bad) = parse(bytes, Layout::MaildirPlusPlus);
            assert_eq!(
                names.iter().map(MailboxName::as_str).collect::<Vec<_>>(),
                ["Entwürfe", "INBOX", "Lists/rust"]
            );
            assert_eq!(bad, []);
        }
    }

    #[test]
    fn a_dot_separates_only_in_maildir_plus_plus() {
        let names = |layout| parse(b"v1.0\n", layout).0.pop_first().unwrap().to_string();
        assert_eq!(names(Layout::MaildirPlusPlus), "v1/0");
        assert_eq!(names(Layout::Directories), "v1.0");
    }

    #[test]
    fn a_bad_line_spoils_no_other() {
        let (names, bad) = parse(b"a\n..\n\xff\nb\n", Layout::MaildirPlusPlus);
        assert_eq!(names.len(), 2);
        assert_eq!(bad.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn what_is_written_is_read() {
        let (names, bad) = parse(&to_bytes(["", ".Lists.rust"].into_iter()), Layout::MaildirPlusPlus);
        assert_eq!(names.iter().map(MailboxName::as_str).collect::<Vec<_>>(), ["INBOX", "Lists/rust"]);
        assert_eq!(bad, []);
    }
}
