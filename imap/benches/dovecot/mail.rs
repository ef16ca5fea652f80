//! The mail that is served: real mail, or mail made up here; always one Maildir that is an INBOX.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first internal date; each message is a second later.
const FIRST_DATE: u64 = 1_030_000_000;

/// A Maildir with nothing but messages in `cur`.
pub(crate) struct Inbox {
    pub(crate) dir: PathBuf,
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Inbox {
    fn new(dir: &Path) -> Inbox {
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join(sub)).expect("the work directory takes directories");
        }
        Inbox { dir: dir.into(), messages: 0, bytes: 0 }
    }

    /// Writes a message under a name as Dovecot gives it.
    fn add(&mut self, body: &[u8], date: SystemTime) {
        let (n, size) = (self.messages, body.len());
        let name = format!("{}.M{n}.bench,S={size}:2,S", FIRST_DATE + n as u64);
        write(&self.dir.join("cur").join(name), body, date);
        self.messages += 1;
        self.bytes += size as u64;
    }

    /// The first messages of all folders of a Maildir++ tree.
    pub(crate) fn of_corpus(dir: &Path, corpus: &Path, messages: usize) -> Inbox {
        let mut inbox = Inbox::new(dir);
        let mut files: Vec<PathBuf> =
            folders(corpus).iter().flat_map(|folder| list(&folder.join("cur"))).collect();
        files.truncate(messages);
        for file in files {
            let date = fs::metadata(&file).and_then(|meta| meta.modified()).expect("a file has a date");
            inbox.add(&fs::read(&file).expect("the corpus can be read"), date);
        }
        assert!(inbox.messages > 0, "{} is no Maildir with mail", corpus.display());
        inbox
    }

    /// Mail that looks like mail: text, alternatives and attachments, encoded subjects, threads.
    pub(crate) fn made_up(dir: &Path, messages: usize) -> Inbox {
        let mut random = Random(1);
        let words: Vec<String> = (0..4000).map(|_| word(&mut random)).collect();
        Inbox::generated(dir, messages, |n| message(&mut random, &words, n))
    }

    /// Short messages, where only their number counts.
    pub(crate) fn short(dir: &Path, messages: usize) -> Inbox {
        Inbox::generated(dir, messages, |n| {
            format!("Subject: {n}\nMessage-ID: <{n}@host.example>\n\nshort\n")
        })
    }

    fn generated(dir: &Path, messages: usize, mut make: impl FnMut(usize) -> String) -> Inbox {
        let mut inbox = Inbox::new(dir);
        for n in 0..messages {
            inbox.add(make(n).as_bytes(), UNIX_EPOCH + Duration::from_secs(FIRST_DATE + n as u64));
        }
        inbox
    }

    /// Copies it to where a server may change it.
    pub(crate) fn copy_to(&self, target: &Path) {
        Inbox::new(target);
        for file in list(&self.dir.join("cur")) {
            let date = fs::metadata(&file).and_then(|meta| meta.modified()).expect("a file has a date");
            let name = file.file_name().expect("a message file has a name");
            write(&target.join("cur").join(name), &fs::read(&file).expect("the mail can be read"), date);
        }
    }
}

fn write(path: &Path, body: &[u8], date: SystemTime) {
    fs::write(path, body).expect("the work directory takes files");
    let file = fs::File::options().write(true).open(path).expect("the file is there");
    file.set_modified(date).expect("a file takes a date");
}

/// The INBOX and the other folders of a Maildir++ tree.
fn folders(corpus: &Path) -> Vec<PathBuf> {
    let subs = list(corpus).into_iter().filter(|path| path.join("cur").is_dir());
    std::iter::once(corpus.to_owned()).chain(subs).collect()
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
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

    /// Bytes of a message: mostly some thousand, sometimes a hundred thousand.
    fn size(&mut self, typical: f64) -> usize {
        let uniform: f64 = (0..6).map(|_| self.below(1 << 20) as f64 / f64::from(1 << 20)).sum();
        (typical * ((uniform - 3.0) * 1.3).exp()) as usize
    }
}

fn word(random: &mut Random) -> String {
    let letters = b"etaoinshrdlucmfwypvbgk";
    (0..2 + random.below(8)).map(|_| letters[random.below(22).min(random.below(22))] as char).collect()
}

fn text(random: &mut Random, words: &[String], length: usize) -> String {
    let mut out = String::new();
    while out.len() < length {
        for _ in 0..11 {
            // Zipf, roughly: small numbers are drawn far more often.
            let rank = (words.len() as f64).powf(random.below(10_000) as f64 / 10_000.0) as usize;
            out.push_str(&words[rank - 1]);
            out.push(' ');
        }
        out.push('\n');
    }
    out
}

fn base64(random: &mut Random, length: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let line = |random: &mut Random| {
        (0..76).map(|_| alphabet[random.below(64)] as char).chain(['\n']).collect::<String>()
    };
    (0..length / 77 + 1).map(|_| line(random)).collect()
}

fn message(random: &mut Random, words: &[String], n: usize) -> String {
    let (host, id) = (random.below(40), random.next());
    let subject = match n % 5 {
        0 => format!("=?utf-8?Q?Gr=C3=BC=C3=9Fe_{}?= topic {}", words[n % words.len()], n % 997),
        _ => format!("Re: topic {}", n % 997),
    };
    let mut out = format!(
        "Return-Path: <user{host}@host{host}.example>\nReceived: from mx{host}.example (mx{host}.example [192.0.2.{host}])\n\
         \tby in.example with ESMTP id {id:x};\n\tMon, 02 Sep 2002 12:{:02}:00 +0000\nDate: Mon, 02 Sep 2002 12:{:02}:00 +0000\n\
         From: User {host} <user{host}@host{host}.example>\nTo: \"List, the\" <list{}@example.org>, other@example.net\n\
         Subject: {subject}\nMessage-ID: <{n}.{host}@host.example>\nIn-Reply-To: <{}.0@host.example>\nMIME-Version: 1.0\n",
        n % 60,
        n % 60,
        n % 11,
        n / 2
    );
    let size = random.size(3500.0);
    let mut plain = text(random, words, size);
    if n.is_multiple_of(100) {
        plain.push_str("See you tomorrow.\n"); // what the bench looks for
    }
    let part =
        |kind: &str, more: &str, body: &str| format!("--=_{id:x}\nContent-Type: {kind}\n{more}\n{body}\n");
    let parts = match n % 10 {
        0..=6 => {
            out.push_str("Content-Type: text/plain; charset=utf-8\n\n");
            out.push_str(&plain);
            return out;
        }
        7 | 8 => {
            out.push_str(&format!("Content-Type: multipart/alternative; boundary=\"=_{id:x}\"\n\n"));
            let html = format!("<html><body><p>{plain}</p></body></html>");
            part("text/plain; charset=utf-8", "", &plain) + &part("text/html; charset=utf-8", "", &html)
        }
        _ => {
            out.push_str(&format!("Content-Type: multipart/mixed; boundary=\"=_{id:x}\"\n\n"));
            let file =
                "Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"a.pdf\"\n";
            let size = random.size(30_000.0);
            part("text/plain; charset=utf-8", "", &plain)
                + &part("application/pdf", file, &base64(random, size))
        }
    };
    format!("{out}{parts}--=_{id:x}--\n")
}
