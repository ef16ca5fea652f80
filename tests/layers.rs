//! Reads the sources to see that each module uses only what lies below it, and that clocks, entropy, disks and networks
//! stay with the modules that own them. `docs/architecture.md` draws the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and the modules that it may name.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("bytes", &[]),
    ("mutation", &[]),
    ("trial", &[]),
    ("blob", &["bytes"]),
    ("mailbox", &["blob", "bytes"]),
    ("uid", &["mailbox", "blob", "bytes", "mutation", "trial"]),
    ("member", &["mailbox", "uid", "bytes"]),
    ("sync", &["mailbox", "blob", "member", "bytes"]),
    ("store", &["mailbox", "blob", "uid", "bytes", "mutation"]),
    ("replica", &["mailbox", "blob", "uid", "member", "sync", "store", "bytes", "mutation", "trial"]),
    ("maildir", &["mailbox", "blob", "uid", "store", "replica", "bytes"]),
    ("net", &["mailbox", "member", "sync", "replica", "bytes"]),
];

/// A path that only some modules may name.
const OWNED: [(&str, &[&str]); 13] = [
    ("std::fs", &["store", "replica", "maildir"]),
    ("std::net", &["net"]),
    // Both write their number into locks.
    ("std::process", &["store", "maildir"]),
    ("std::env", &[]),
    // It waits a moment for a lock of Dovecot's, and starts none.
    ("std::thread", &["maildir"]),
    ("SystemTime::now", &["replica"]),
    ("Instant::now", &["net"]),
    ("getrandom", &["replica", "store", "net"]),
    ("tokio", &["net"]),
    ("quinn", &["net"]),
    ("redb", &["store"]),
    ("automerge", &["mailbox"]),
    ("println!", &[]),
];

/// How paths of tests begin, beside files and directories called `tests`.
const TESTS: [&str; 3] = ["src/uid/model", "src/replica/simulation", "src/store/disk/fault.rs"];

struct Source {
    path: String,
    module: String,
    /// Line number and code, comments taken out.
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut dirs, mut sources) = (vec![root.join("src")], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(root, &path));
            }
        }
    }
    assert!(sources.len() > 50, "only {} sources were found", sources.len());
    sources
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let inside = path.strip_prefix(root).unwrap();
        let first = inside.components().nth(1).unwrap().as_os_str().to_str().unwrap();
        let text = fs::read_to_string(path).unwrap();
        // `//` inside of a string cuts off its line's end, which only makes the test look at less of that line.
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned());
        Source {
            path: inside.to_str().unwrap().to_owned(),
            module: first.trim_end_matches(".rs").to_owned(),
            lines: (1..).zip(code).collect(),
        }
    }

    /// The lines that are compiled into the library: unit tests stand at the end of their file.
    fn shipped(&self) -> impl Iterator<Item = &(usize, String)> {
        let is_test = TESTS.iter().any(|test| self.path.starts_with(test))
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/");
        self.lines.iter().take_while(move |(_, line)| !is_test && !line.starts_with("mod tests {"))
    }
}

/// The words that follow each `prefix` in a line.
fn names_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// Whether a line names `path`, and not something that only ends or goes on with its letters.
fn names(line: &str, path: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let behind = line[at + path.len()..].chars().next().is_some_and(part);
        !before && !behind
    })
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    let mut modules = BTreeSet::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        modules.insert(source.module.clone());
        let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| *module == source.module) else {
            wrong.push(format!("{}: module {} has no layer", source.path, source.module));
            continue;
        };
        for (number, line) in &source.lines {
            for used in names_after(line, "crate::") {
                if used != source.module && !allowed.contains(&used) {
                    // An empty name is `crate::{...}` or `crate::*`: one path a line can be read here, and by people.
                    wrong.push(format!("{}:{number}: {} uses crate::{used}", source.path, source.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let listed: BTreeSet<String> = MAY_USE.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(modules, listed, "the table and the tree have different modules");
}

#[test]
fn the_table_has_no_cycle() {
    let place = |name: &str| MAY_USE.iter().position(|(module, _)| *module == name).unwrap();
    for (module, allowed) in MAY_USE {
        for used in allowed {
            assert!(place(used) < place(module), "{module} and {used} stand in the wrong order");
        }
    }
}

#[test]
fn clocks_entropy_disks_and_networks_have_owners() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.shipped() {
            for (path, owners) in OWNED {
                if names(line, path) && !owners.contains(&source.module.as_str()) {
                    wrong.push(format!("{}:{number}: {path} is not for {}", source.path, source.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_test_itself_can_fail() {
    assert_eq!(
        names_after("use crate::store::Txn; crate::{a}", "crate::").collect::<Vec<_>>(),
        ["store", ""]
    );
    assert!(names("std::time::Instant::now()", "Instant::now"));
    assert!(!names("my_tokio::x", "tokio") && !names("tokio_util::x", "tokio"));
}
