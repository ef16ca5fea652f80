//! Maildir trees, as the tests make and read them: by hand, not with the library.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A message of a Maildir: UID, flags and keywords, date, body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) uid: u32,
    pub(crate) flags: Vec<String>,
    pub(crate) date: u64,
    pub(crate) body: Body,
}

/// A body, which says little when a test fails.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.0[..self.0.len().min(20)];
        write!(f, "{} bytes {:?}", self.0.len(), String::from_utf8_lossy(start))
    }
}

/// UIDVALIDITY, UIDNEXT, messages.
pub(crate) type Folder = (u32, u32, Vec<Found>);

/// The mail that ships with the program.
pub(crate) fn demo_mail() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-mail");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Writes a folder with UIDs and keywords, as Dovecot does.
pub(crate) fn write_folder(dir: &Path, validity: u32, messages: &[(u32, &str, &[u8])]) {
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let next = messages.iter().map(|message| message.0 + 1).max().unwrap_or(1);
    let mut list = format!("3 V{validity} N{next} G{}\n", "0123456789abcdef".repeat(2));
    for (uid, letters, body) in messages {
        let base = format!("{}.M{uid}P1.host", 1_700_000_000 + uid);
        list.push_str(&format!("{uid} :{base}\n"));
        let path = dir.join("cur").join(format!("{base}:2,{letters}"));
        fs::write(&path, body).unwrap();
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + u64::from(*uid) * 60);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(date)).unwrap();
    }
    fs::write(dir.join("dovecot-uidlist"), list).unwrap();
    fs::write(dir.join("dovecot-keywords"), "0 work\n1 holiday\n").unwrap();
}

/// A mailbox of each kind.
pub(crate) fn write_tree(root: &Path) {
    let mail = demo_mail();
    let inbox: Vec<(u32, &str, &[u8])> = mail
        .iter()
        .zip(1..)
        .map(|(body, number)| (number * 3, ["S", "", "FSa", "RSb", "Tab"][number as usize % 5], &body[..]))
        .collect();
    write_folder(root, 1_234_567, &inbox);
    // Names in modified UTF-7: Entwürfe and 日本/語.
    write_folder(&root.join(".Entw&APw-rfe"), 77, &[(1, "D", &mail[3]), (900, "DS", &mail[4])]);
    write_folder(&root.join(".&ZeVnLA-.&ip4-"), 78, &[(5, "", &mail[0])]);
    write_folder(&root.join(".Empty"), 79, &[]);
    fs::write(root.join("subscriptions"), "V\t2\n\nEntw&APw-rfe\n").unwrap();
}

/// Reads what a Dovecot would serve.
pub(crate) fn read_tree(root: &Path) -> BTreeMap<String, Folder> {
    let mut folders = BTreeMap::new();
    folders.insert("INBOX".to_owned(), read_folder(root));
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        if name.starts_with('.') {
            folders.insert(name, read_folder(&entry.unwrap().path()));
        }
    }
    folders
}

fn read_folder(dir: &Path) -> Folder {
    let list = fs::read_to_string(dir.join("dovecot-uidlist")).unwrap();
    let mut lines = list.lines();
    let head: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let number = |letter: char| {
        let field = head.iter().find_map(|field| field.strip_prefix(letter)).unwrap();
        field.parse::<u32>().unwrap()
    };
    let uids: BTreeMap<&str, u32> = lines
        .map(|line| {
            let (fields, base) = line.split_once(" :").unwrap_or_else(|| line.split_once(':').unwrap());
            (base, fields.split(' ').next().unwrap().parse().unwrap())
        })
        .collect();
    let keywords = fs::read_to_string(dir.join("dovecot-keywords")).unwrap_or_default();
    let keywords: Vec<&str> = keywords.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    let mut messages = Vec::new();
    for entry in fs::read_dir(dir.join("cur")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (base, letters) = name.split_once(":2,").unwrap();
        let mut flags: Vec<String> = letters
            .chars()
            .map(|letter| match letter {
                'a'..='z' => keywords[letter as usize - 'a' as usize].to_owned(),
                letter => letter.to_string(),
            })
            .collect();
        flags.sort();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let date = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let uid = uids.get(base).copied().unwrap_or_else(|| panic!("{base} has no UID"));
        messages.push(Found { uid, flags, date, body: Body(fs::read(&path).unwrap()) });
    }
    messages.sort();
    (number('V'), number('N'), messages)
}
