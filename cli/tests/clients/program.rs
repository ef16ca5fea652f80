//! Programs that keep a Maildir in step with a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::imap::{Message, message_id};
use crate::relay::Relay;
use crate::server::Server;
use crate::support::files;

/// Maildir's letters.
const FLAGS: [(char, &str); 5] =
    [('D', "\\Draft"), ('F', "\\Flagged"), ('R', "\\Answered"), ('S', "\\Seen"), ('T', "\\Deleted")];

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Mbsync,
    OfflineImap,
    /// A small one that stands beside these tests.
    Imaplib,
}

/// A program, its configuration, its state and its Maildirs.
pub(crate) struct Program {
    kind: Kind,
    user: &'static str,
    password: &'static str,
    home: TempDir,
    relay: Relay,
}

impl Program {
    /// One that never ran. It will log in as `server` wants it; [`Program::roam`] leads it elsewhere.
    pub(crate) fn new(kind: Kind, server: &Server) -> Program {
        let program = Program {
            kind,
            user: server.user,
            password: server.password,
            home: TempDir::new().unwrap(),
            relay: Relay::new(),
        };
        fs::create_dir(program.mail()).unwrap();
        let config = match kind {
            Kind::Mbsync => mbsync(&program),
            Kind::OfflineImap => offlineimap(&program),
            Kind::Imaplib => String::new(),
        };
        fs::write(program.config(), config).unwrap();
        program.roam(server);
        program
    }

    /// Meets another server when it next runs, and cannot know.
    pub(crate) fn roam(&self, server: &Server) {
        self.relay.lead_to(&server.address);
    }

    /// Runs once. Gives the bytes that it was sent.
    #[track_caller]
    pub(crate) fn run(&self) -> u64 {
        self.relay.received();
        let mut command = match self.kind {
            Kind::Mbsync => Command::new("mbsync"),
            Kind::OfflineImap => Command::new("offlineimap"),
            Kind::Imaplib => Command::new("python3"),
        };
        match self.kind {
            Kind::Mbsync => command.arg("-c").arg(self.config()).arg("all"),
            Kind::OfflineImap => command.arg("-c").arg(self.config()).args(["-o", "-u", "basic"]),
            Kind::Imaplib => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/imaplib_client.py");
                command.args([script, &self.relay.port.to_string(), self.user, self.password]);
                command.arg(self.mail()).arg(self.home.path().join("state"))
            }
        };
        let output = command.env("HOME", self.home.path()).env("USER", "tester").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("ERROR"), "{said}");
        self.relay.received()
    }

    /// All its files with their names and bytes.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.mail()).into_iter().filter(|(path, _)| is_message(path)).collect()
    }

    /// Every message of a mailbox, sorted; one that is there twice is listed twice.
    pub(crate) fn look(&self, mailbox: &str) -> Vec<Message> {
        let mut messages: Vec<Message> =
            self.messages(mailbox).iter().map(|path| (id_of(path), flags_of(path))).collect();
        messages.sort();
        messages
    }

    /// Its folders.
    pub(crate) fn mailboxes(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.mail()).unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.path().join("cur").is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// A mail reader sets the letters of a message.
    #[track_caller]
    pub(crate) fn set_letters(&self, mailbox: &str, id: &str, letters: &str) {
        let path = self.find(mailbox, id);
        let name = path.file_name().unwrap().to_str().unwrap();
        let base = name.split(":2,").next().unwrap();
        fs::rename(&path, self.folder(mailbox).join("cur").join(format!("{base}:2,{letters}"))).unwrap();
    }

    /// A mail reader files a message elsewhere.
    #[track_caller]
    pub(crate) fn move_file(&self, mailbox: &str, id: &str, target: &str) {
        let path = self.find(mailbox, id);
        let letters: String = letters(&path).collect();
        // A new name, as mail readers give one: the old one may hold the UID in the old folder.
        let name = format!("1700000000.moved-{}.host:2,{letters}", id.trim_matches(['<', '>']));
        fs::rename(path, self.folder(target).join("cur").join(name)).unwrap();
    }

    /// A mail reader removes a message.
    #[track_caller]
    pub(crate) fn remove(&self, mailbox: &str, id: &str) {
        fs::remove_file(self.find(mailbox, id)).unwrap();
    }

    /// A mail reader keeps a new message.
    pub(crate) fn add(&self, mailbox: &str, message: &str) {
        let name = format!("1700000001.new-{}.host", message_id(message).trim_matches(['<', '>']));
        fs::write(self.folder(mailbox).join("new").join(name), message.replace("\r\n", "\n")).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Where its Maildirs are.
    pub(crate) fn mail(&self) -> PathBuf {
        self.home.path().join("mail")
    }

    fn folder(&self, mailbox: &str) -> PathBuf {
        self.mail().join(mailbox)
    }

    #[track_caller]
    fn find(&self, mailbox: &str, id: &str) -> PathBuf {
        let found = self.messages(mailbox).into_iter().find(|path| id_of(path) == id);
        found.unwrap_or_else(|| panic!("no {id} in {mailbox}"))
    }

    fn messages(&self, mailbox: &str) -> Vec<PathBuf> {
        let folder = self.folder(mailbox);
        files(&folder).into_keys().filter(|path| is_message(path)).map(|path| folder.join(path)).collect()
    }
}

fn mbsync(program: &Program) -> String {
    let Program { user, password, .. } = program;
    let (port, mail) = (program.relay.port, program.mail());
    let mail = mail.display();
    format!(
        "IMAPAccount far\nHost 127.0.0.1\nPort {port}\nUser {user}\nPass {password}\nAuthMechs LOGIN\nSSLType None\n\n\
         IMAPStore far\nAccount far\n\n\
         MaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nSyncState *\n"
    )
}

fn offlineimap(program: &Program) -> String {
    let Program { user, password, .. } = program;
    let (port, mail, home) = (program.relay.port, program.mail(), program.home.path());
    let (mail, home) = (mail.display(), home.display());
    format!(
        "[general]\naccounts = all\nmetadata = {home}/state\n\n\
         [Account all]\nlocalrepository = near\nremoterepository = far\n\n\
         [Repository near]\ntype = Maildir\nlocalfolders = {mail}\n\n\
         [Repository far]\ntype = IMAP\nremotehost = 127.0.0.1\nremoteport = {port}\nremoteuser = {user}\n\
         remotepass = {password}\nssl = no\nstarttls = no\nauth_mechanisms = PLAIN, LOGIN\n"
    )
}

/// Whether a file lies in `cur` or `new`, where only messages do.
pub(crate) fn is_message(path: &Path) -> bool {
    let dir = path.parent().and_then(Path::file_name);
    let name = path.file_name().unwrap().to_str().unwrap();
    dir.is_some_and(|dir| dir == "cur" || dir == "new") && !name.starts_with('.')
}

fn id_of(path: &Path) -> String {
    message_id(&String::from_utf8(fs::read(path).unwrap()).unwrap())
}

fn letters(path: &Path) -> impl Iterator<Item = char> {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.split_once(":2,").map_or("", |(_, letters)| letters).chars().filter(char::is_ascii_uppercase)
}

fn flags_of(path: &Path) -> BTreeSet<String> {
    let set: BTreeSet<char> = letters(path).collect();
    FLAGS.iter().filter(|(letter, _)| set.contains(letter)).map(|(_, flag)| (*flag).to_owned()).collect()
}
