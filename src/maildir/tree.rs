//! Finds the mailboxes of a mail store: which directory holds which, in either layout.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::folder_name;
use super::scan::{Layout, MaildirError, SkipReason, Skipped};
use crate::mailbox::MailboxName;

/// The mailboxes' directories.
pub(super) struct Tree {
    pub(super) layout: Layout,
    pub(super) dirs: BTreeMap<MailboxName, PathBuf>,
    pub(super) skipped: Vec<Skipped>,
}

/// Looks through `root`. Only a root that cannot be read is an error here.
pub(super) fn find(root: &Path) -> Result<Tree, MaildirError> {
    let is_inbox = is_maildir(root);
    let layout = if is_inbox { Layout::MaildirPlusPlus } else { Layout::Directories };
    let mut tree = Tree { layout, dirs: BTreeMap::new(), skipped: Vec::new() };
    let children = children(root).map_err(|source| MaildirError::Io { path: root.into(), source })?;
    if is_inbox {
        tree.dirs.insert(MailboxName::inbox(), root.into());
    }
    for child in children {
        tree.visit(None, &child);
    }
    Ok(tree)
}

impl Tree {
    /// Takes in a directory below the mailbox or plain directory `parent`, and all that is below it.
    fn visit(&mut self, parent: Option<&MailboxName>, child: &Child) {
        let skip = |tree: &mut Tree, reason| tree.skipped.push(Skipped { path: child.path.clone(), reason });
        let is_mailbox = is_maildir(&child.path);
        if child.is_symlink {
            if is_mailbox || child.is_hidden() {
                skip(self, SkipReason::Symlink);
            }
            return;
        }
        let name = if child.is_hidden() {
            if !is_mailbox {
                return skip(self, SkipReason::NoMaildir);
            }
            folder_name::of_maildir_plus_plus(parent, child.name())
        } else if self.layout == Layout::MaildirPlusPlus {
            if is_mailbox {
                skip(self, SkipReason::OtherLayout);
            }
            return;
        } else {
            folder_name::of_directory(parent, child.name())
        };
        let name = match name {
            Ok(name) => name,
            Err(reason) => return skip(self, reason),
        };
        if is_mailbox {
            if self.dirs.contains_key(&name) {
                return skip(self, SkipReason::SameMailbox { name });
            }
            self.dirs.insert(name.clone(), child.path.clone());
        }
        // The names' maximum of levels ends the descent.
        if self.layout == Layout::Directories {
            match children(&child.path) {
                Ok(below) => below.iter().for_each(|below| self.visit(Some(&name), below)),
                Err(source) => skip(self, SkipReason::Io(source)),
            }
        }
    }
}

/// A directory, or a link to something.
struct Child {
    path: PathBuf,
    is_symlink: bool,
}

impl Child {
    fn name(&self) -> &[u8] {
        self.path.file_name().map_or(&[], OsStr::as_bytes)
    }

    fn is_hidden(&self) -> bool {
        self.name().starts_with(b".")
    }
}

/// The directories and links in `dir`, by name, without those of the Maildir itself.
fn children(dir: &Path) -> std::io::Result<Vec<Child>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let own = matches!(entry.file_name().as_bytes(), b"cur" | b"new" | b"tmp");
        if !own && (kind.is_dir() || kind.is_symlink()) {
            children.push(Child { path: entry.path(), is_symlink: kind.is_symlink() });
        }
    }
    children.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(children)
}

/// Whether `dir` has a `cur` or a `new`, of whatever kind: one that cannot be read is then reported.
fn is_maildir(dir: &Path) -> bool {
    ["cur", "new"].iter().any(|sub| dir.join(sub).symlink_metadata().is_ok())
}
