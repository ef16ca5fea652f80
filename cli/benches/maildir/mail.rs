//! Maildir++ trees: made up or given, copied, changed as mail programs change them, and held against each other.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// The first internal date of what is made up; each message is a second later.
const FIRST_DATE: u64 = 1_030_000_000;

/// The folders of what is made up.
const FOLDERS: [&str; 16] = [
    "",
    ".Sent",
    ".Archive",
    ".Archive.2001",
    ".Archive.2002",
    ".Archive.2003",
    ".Lists",
    ".Lists.one",
    ".Lists.two",
    ".Lists.two.social",
    ".Work.Projects.Apollo",
    ".M&APw-ller",
    ".Receipts 2002",
    ".Junk",
    ".Trash",
    ".Drafts",
];

/// A Maildir++ tree.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

/// A message's file.
#[derive(Clone)]
pub(crate) struct File {
    folder: String,
    path: PathBuf,
}

impl File {
    /// The name before the flags.
    pub(crate) fn base(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once(":2,").map_or(name, |(base, _)| base)
    }

    fn flags(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once(":2,").map_or("", |(_, flags)| flags)
    }

    /// The same file with F, or without it.
    fn turned(&self) -> PathBuf {
        let mut flags: Vec<char> = self.flags().chars().filter(|flag| *flag != 'F').collect();
        if !self.flags().contains('F') {
            flags.push('F');
        }
        flags.sort_unstable();
        let name = format!("{}:2,{}", self.base(), flags.into_iter().collect::<String>());
        let folder = self.path.parent().and_then(Path::parent).expect("a message lies in a folder");
        folder.join("cur").join(name)
    }

    /// Sets the flag F, or takes it away, and says where the file is now.
    pub(crate) fn turn_flag(&self) -> File {
        let path = self.turned();
        fs::rename(&self.path, &path).expect("a file can be renamed");
        File { folder: self.folder.clone(), path }
    }

    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// What it holds, as a number; without the header that mbsync leaves in what it writes.
    pub(crate) fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let body = fs::read(&self.path).expect("a file can be read");
        body.split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !line.starts_with(b"X-TUID: "))
            .for_each(|line| hasher.write(line));
        hasher.finish()
    }

    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// The file that a program gave this one's name and flags there.
    pub(crate) fn like(&self, flags_of: &File) -> PathBuf {
        let folder = self.path.parent().expect("a message lies in a folder");
        folder.with_file_name("cur").join(format!("{}:2,{}", self.base(), flags_of.flags()))
    }
}

impl Tree {
    pub(crate) fn at(root: &Path) -> Tree {
        Tree { root: root.into() }
    }

    /// One that holds nothing.
    pub(crate) fn empty(root: &Path) -> Tree {
        make_folder(root);
        Tree::at(root)
    }

    /// A copy with the same times.
    pub(crate) fn copy(&self, root: &Path) -> Tree {
        let copied = Command::new("cp").arg("-a").arg(&self.root).arg(root).status().expect("cp runs");
        assert!(copied.success(), "the mail cannot be copied");
        Tree::at(root)
    }

    /// The names of the folders that hold mail; that of the INBOX is empty.
    pub(crate) fn folders(&self) -> Vec<String> {
        let subs = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let subs = subs.filter(|entry| entry.path().join("cur").is_dir());
        let mut names: Vec<String> = subs.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        // muchsync's has none.
        if self.root.join("cur").is_dir() {
            names.push(String::new());
        }
        names.sort();
        names
    }

    /// Every message, sorted by folder and name.
    pub(crate) fn files(&self) -> Vec<File> {
        let mut files = Vec::new();
        for folder in self.folders() {
            for sub in ["cur", "new"] {
                let dir = self.root.join(&folder).join(sub);
                let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
                files.extend(paths.map(|path| File { folder: folder.clone(), path }));
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// Messages and their bytes.
    pub(crate) fn count(&self) -> (usize, u64) {
        let files = self.files();
        let bytes = files.iter().map(|file| fs::metadata(&file.path).map_or(0, |meta| meta.len())).sum();
        (files.len(), bytes)
    }

    /// How many messages, by folder, flags and, if `strict`, content, only one of two trees has.
    pub(crate) fn differences(&self, other: &Tree, strict: bool) -> u64 {
        let mut counts: BTreeMap<(String, String, u64), i64> = BTreeMap::new();
        for (tree, step) in [(self, 1), (other, -1)] {
            for file in tree.files() {
                let flags = file.flags().chars().filter(char::is_ascii_uppercase).collect();
                let content = if strict { file.content() } else { 0 };
                *counts.entry((file.folder.clone(), flags, content)).or_default() += step;
            }
        }
        counts.values().map(|count| count.unsigned_abs()).sum()
    }

    /// Adds a message as a delivery agent does; gives its bytes.
    fn deliver(&self, folder: &str, random: &mut Random) -> u64 {
        let id = random.next();
        let mut body = format!("Subject: {id:016x}\n\n").into_bytes();
        // It does not compress, so that what goes over the wire beside it is not hidden by what it saves.
        body.extend((0..3500).map(|n| match random.below(256) as u8 {
            _ if n % 500 == 499 => b'\n',
            0 | b'\r' | b'\n' => b'x',
            byte => byte,
        }));
        let (dir, name) = (self.root.join(folder), format!("{FIRST_DATE}.{id:016x}.bench"));
        let tmp = dir.join("tmp").join(&name);
        fs::write(&tmp, &body).expect("a folder takes files");
        fs::rename(tmp, dir.join("cur").join(format!("{name}:2,S"))).expect("a file can be renamed");
        body.len() as u64
    }
}

/// Changes of one side: flags on one in a hundred, 50 new messages, 10 removed, 10 moved. Two sides, and two rounds, change
/// different messages: each takes those whose turn it is. Gives the bytes of what is new.
pub(crate) fn change(tree: &Tree, turn: usize, turns: usize) -> u64 {
    let mut random = Random(turn as u64 + 7);
    let mut files = tree.files();
    // What a turn takes is told by the content, which is the same on both sides; the file's name is not.
    files.retain(|file| file.content() % turns as u64 == turn as u64);
    files.sort_by_key(File::content);
    let all = tree.files().len();
    let folders = tree.folders();
    let mut files = files.into_iter();
    for file in files.by_ref().take(all / 100) {
        file.turn_flag();
    }
    for file in files.by_ref().take(10) {
        fs::remove_file(file.path).expect("a file can be removed");
    }
    for file in files.by_ref().take(10) {
        let mut others = folders.iter().filter(|folder| **folder != file.folder);
        let other = others.nth(random.below(folders.len() - 1)).expect("there are several folders");
        let name = format!("{FIRST_DATE}.{:016x}.moved:2,{}", random.next(), file.flags());
        fs::rename(&file.path, tree.root.join(other).join("cur").join(name)).expect("a file can be renamed");
    }
    (0..50).map(|n| tree.deliver(&folders[n % folders.len()], &mut random)).sum()
}

/// Mail that looks like mail: text, some of it with an attachment.
pub(crate) fn made_up(root: &Path, messages: usize) -> Tree {
    let mut random = Random(1);
    let words: Vec<String> = (0..4000).map(|_| word(&mut random)).collect();
    FOLDERS.iter().for_each(|folder| make_folder(&root.join(folder)));
    for n in 0..messages {
        let body = message(&mut random, &words, n);
        let flags = if n.is_multiple_of(5) { "" } else { "S" };
        let name = format!("{}.M{n}.bench,S={}:2,{flags}", FIRST_DATE + n as u64, body.len());
        // Most mail lies in few folders.
        let folder = FOLDERS[random.below(FOLDERS.len()).min(random.below(FOLDERS.len()))];
        let path = root.join(folder).join("cur").join(name);
        fs::write(&path, body).expect("the work directory takes files");
        let file = fs::File::options().write(true).open(&path).expect("the file is there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(FIRST_DATE + n as u64))
            .expect("a file takes a date");
    }
    Tree::at(root)
}

fn make_folder(dir: &Path) {
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.join(sub)).expect("the work directory takes directories");
    }
}

fn word(random: &mut Random) -> String {
    let letters = b"etaoinshrdlucmfwypvbgk";
    (0..2 + random.below(8)).map(|_| letters[random.below(22).min(random.below(22))] as char).collect()
}

fn message(random: &mut Random, words: &[String], n: usize) -> String {
    let (host, id) = (random.below(40), random.next());
    let mut out = format!(
        "Return-Path: <user{host}@host{host}.example>\nReceived: from mx{host}.example (mx{host}.example [192.0.2.{host}])\n\
         \tby in.example with ESMTP id {id:x};\n\tMon, 02 Sep 2002 12:{:02}:00 +0000\nFrom: User {host} \
         <user{host}@host{host}.example>\nTo: list{}@example.org\nSubject: Re: topic {}\nMessage-ID: <{id:x}.{n}@host.example>\n\n",
        n % 60,
        n % 11,
        n % 997
    );
    let attachment = if n.is_multiple_of(33) { random.below(400_000) } else { 0 };
    let length = out.len() + 500 + random.below(3000) + random.below(3000);
    while out.len() < length {
        for _ in 0..11 {
            // Zipf, roughly: small numbers are drawn far more often.
            let rank = (words.len() as f64).powf(random.below(10_000) as f64 / 10_000.0) as usize;
            out.push_str(&words[rank - 1]);
            out.push(' ');
        }
        out.push('\n');
    }
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for _ in 0..attachment / 77 {
        out.extend((0..76).map(|_| alphabet[random.below(64)] as char));
        out.push('\n');
    }
    out
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
