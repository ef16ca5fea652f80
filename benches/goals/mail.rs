//! The mail that is measured: a Maildir++ tree of real mail, or one made up here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use postmerge::maildir::{self, Scan};
use postmerge::replica::{ImportMessage, Replica};

use crate::meter::Random;

/// A Maildir++ tree to be read.
pub(crate) struct Corpus {
    pub(crate) dir: PathBuf,
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
    pub(crate) made_up: bool,
}

impl Corpus {
    pub(crate) fn at(dir: &Path, made_up: bool) -> Corpus {
        let files = files(&scan(dir));
        let bytes = files.iter().map(|(_, size)| size).sum();
        Corpus { dir: dir.into(), messages: files.len(), bytes, made_up }
    }

    /// Text-like mail: headers as real ones, and words with the frequencies of a language.
    pub(crate) fn make_up(dir: &Path, messages: usize) -> Corpus {
        let mut random = Random(1);
        let words: Vec<String> = (0..4000).map(|_| word(&mut random)).collect();
        for (n, folder) in ["", ".Sent", ".Archive", ".Lists"].iter().enumerate() {
            for sub in ["cur", "new", "tmp"] {
                fs::create_dir_all(dir.join(folder).join(sub)).expect("the work directory takes directories");
            }
            for i in (n..messages).step_by(4) {
                let path = dir.join(folder).join("cur").join(format!("{}.M{i}.bench:2,S", 1_030_000_000 + i));
                fs::write(path, made_up(&mut random, &words, i)).expect("the work directory takes files");
            }
        }
        Corpus::at(dir, true)
    }

    /// The same mail without what is base64 in it: attachments that somebody compressed before.
    pub(crate) fn text_only(&self, dir: &Path) -> Corpus {
        for folder in scan(&self.dir).folders {
            let name = folder.dir.file_name().filter(|_| folder.dir != self.dir).unwrap_or_default();
            let target = dir.join(name);
            for sub in ["cur", "new", "tmp"] {
                fs::create_dir_all(target.join(sub)).expect("the work directory takes directories");
            }
            for message in folder.messages {
                let body = fs::read(&message.path).expect("the corpus can be read");
                let path =
                    target.join("cur").join(message.path.file_name().expect("a message file has a name"));
                fs::write(&path, without_base64(&body)).expect("the disk takes files");
                // The internal date: without it the messages would come in another order than they have.
                let date = UNIX_EPOCH + Duration::from_secs(message.internal_date.max(0) as u64);
                let file = fs::File::options().write(true).open(&path).expect("the file is there");
                file.set_modified(date).expect("a file takes a date");
            }
        }
        Corpus::at(dir, self.made_up)
    }

    /// Every message, as the import reads them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files(&scan(&self.dir)).into_iter().map(|(path, _)| path).collect()
    }
}

pub(crate) fn scan(dir: &Path) -> Scan {
    maildir::scan(dir).expect("the corpus is a Maildir")
}

fn files(scan: &Scan) -> Vec<(PathBuf, u64)> {
    let messages = scan.folders.iter().flat_map(|folder| &folder.messages);
    messages.map(|message| (message.path.clone(), message.size)).collect()
}

fn word(random: &mut Random) -> String {
    let letters = b"etaoinshrdlucmfwypvbgk";
    let pick = |random: &mut Random| letters[random.below(22).min(random.below(22))] as char;
    (0..2 + random.below(4) + random.below(4)).map(|_| pick(random)).collect()
}

fn made_up(random: &mut Random, words: &[String], n: usize) -> Vec<u8> {
    let host = random.below(40);
    let id = random.next();
    let mut out = format!(
        "Return-Path: <user{host}@host{host}.example>\nReceived: from mx{host}.example (mx{host}.example [192.0.2.{host}])\n\
         \tby in.example with ESMTP id {id:x};\n\tMon, 02 Sep 2002 12:{:02}:00 +0000\nFrom: User {host} \
         <user{host}@host{host}.example>\nTo: list{}@example.org\nSubject: Re: topic {}\nMessage-ID: <{id:x}.{n}@host{host}.example>\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n",
        n % 60,
        n % 11,
        n % 997
    );
    let length = out.len() + random.size(3500.0);
    while out.len() < length {
        for _ in 0..11 {
            // Zipf, roughly: small numbers are drawn far more often.
            let rank = (words.len() as f64).powf(random.below(10_000) as f64 / 10_000.0) as usize;
            out.push_str(&words[rank - 1]);
            out.push(' ');
        }
        out.push('\n');
    }
    out.into_bytes()
}

fn without_base64(body: &[u8]) -> Vec<u8> {
    let is_base64 = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.len() >= 60 && line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
    };
    let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|line| !is_base64(line)).collect();
    lines.join(&b'\n')
}

/// Imports a tree as the program does.
pub(crate) fn import(replica: &Replica, dir: &Path) {
    import_copies(replica, dir, usize::MAX, 0);
}

/// Imports the first `limit` messages of a tree as the `copy`-th variant of it; 0 is the tree itself.
pub(crate) fn import_copies(replica: &Replica, dir: &Path, limit: usize, copy: usize) {
    let mut left = limit;
    for folder in scan(dir).folders {
        let adopt = folder.uidlist.as_ref().map(|list| (list.validity, list.next.value()));
        let mut importer = replica.import(&folder.name, adopt, false, false).expect("an import begins");
        for message in folder.messages {
            if left == 0 {
                break;
            }
            left -= 1;
            let mut body = fs::read(&message.path).expect("the corpus can be read");
            if copy > 0 {
                body.splice(..0, format!("X-Copy: {copy}\n").into_bytes());
            }
            let (internal_date, keywords, uid) = (message.internal_date, message.keywords, message.uid);
            importer.add(ImportMessage { internal_date, keywords, uid }, &*body).expect("a message goes in");
        }
        importer.finish().expect("an import ends");
    }
}

/// Reads, hashes and compresses the files, bundled as the store bundles them, and keeps nothing. Gives the bytes.
pub(crate) fn read_hash_compress(files: &[PathBuf]) -> u64 {
    let (mut bundle, mut total) = (Vec::new(), 0);
    let mut flush = |bundle: &mut Vec<u8>| {
        total += zstd::bulk::compress(bundle, 3).expect("zstd compresses").len() as u64;
        bundle.clear();
    };
    for path in files {
        let body = fs::read(path).expect("the corpus can be read");
        std::hint::black_box(blake3::hash(&body));
        if bundle.len() + body.len() > 128 << 10 && !bundle.is_empty() {
            flush(&mut bundle);
        }
        bundle.extend(body);
    }
    flush(&mut bundle);
    total
}

/// What `zstd -19 --long=27` makes of all files together, in bytes: hardly anything gets below it.
pub(crate) fn smallest(files: &[PathBuf]) -> u64 {
    use zstd::zstd_safe::CParameter;
    let mut all = Vec::new();
    for path in files {
        all.extend(fs::read(path).expect("the corpus can be read"));
    }
    let mut compressor = zstd::bulk::Compressor::new(19).expect("zstd has a level 19");
    compressor.set_parameter(CParameter::WindowLog(27)).expect("zstd has a window of 128 MiB");
    compressor.set_parameter(CParameter::EnableLongDistanceMatching(true)).expect("zstd matches far back");
    compressor.compress(&all).expect("zstd compresses").len() as u64
}
