//! The programs beside us, each with two Maildirs of its own, and the command that brings them in step.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mail::Tree;
use crate::ours::Postmerge;

/// Dovecot gives no mail to root.
const NOBODY: u32 = 65534;

/// A program that keeps two Maildirs in step. `wire` is put before the command of the other end, and counts what crosses.
pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// Whether it can be measured here.
    fn installed(&self) -> bool {
        true
    }

    /// Lays out the first side full and the second one empty, and gives both.
    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree);

    /// What the first sync takes.
    fn first(&mut self, wire: &str) -> Vec<Command> {
        self.sync(wire)
    }

    /// What every other one takes.
    fn sync(&mut self, wire: &str) -> Vec<Command>;

    /// Takes what the last command printed.
    fn printed(&mut self, _out: &str) {}

    /// Makes both sides the program's own again after they were changed.
    fn changed(&self) {}

    /// Whether what the second side does comes to the first.
    fn both_ways(&self) -> bool {
        true
    }

    /// Ourselves: who is measured further, and must be right to the byte.
    fn ours(&self) -> Option<&Postmerge> {
        None
    }
}

pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let rsync = |name, options| Rsync { name, options, dir: PathBuf::new() };
    vec![
        Box::new(rsync("rsync", "-a")),
        Box::new(rsync("rsync-z", "-az")),
        Box::new(Dsync::default()),
        Box::new(Mbsync::default()),
        Box::new(Muchsync::default()),
        Box::new(OfflineImap::default()),
    ]
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Writes a shell script and gives its path.
fn script(path: &Path, text: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("the work directory takes files");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path.display().to_string()
}

/// Copies files, one way, and knows nothing of mail.
struct Rsync {
    name: &'static str,
    options: &'static str,
    dir: PathBuf,
}

impl Peer for Rsync {
    fn name(&self) -> &'static str {
        self.name
    }

    fn installed(&self) -> bool {
        is_there("rsync")
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        self.dir = dir.to_owned();
        (mail.copy(&dir.join("a")), Tree::empty(&dir.join("b")))
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let shell = script(&self.dir.join("rsh"), &format!("shift\nexec {wire} \"$@\""));
        let mut command = Command::new("rsync");
        command.args([self.options, "--delete", "-e", &shell]);
        command.arg(format!("{}/", self.dir.join("a").display()));
        command.arg(format!("host:{}/", self.dir.join("b").display()));
        vec![command]
    }

    fn both_ways(&self) -> bool {
        false
    }
}

/// A Dovecot account without a daemon.
#[derive(Default, Clone)]
struct Account {
    home: PathBuf,
    conf: PathBuf,
}

impl Account {
    fn new(dir: &Path, name: &str) -> Account {
        let (home, conf, run) =
            (dir.join(name), dir.join(format!("{name}.conf")), dir.join(format!("run-{name}")));
        for made in [&home, &run] {
            fs::create_dir(made).expect("the work directory takes directories");
        }
        let user = match fs::metadata(dir).expect("it is there").uid() {
            0 => NOBODY,
            user => user,
        };
        let text = format!(
            "base_dir={run}\nstate_dir={run}\nlog_path={log}\nmail_location=maildir:~/Maildir\nmail_uid={user}\n\
             mail_gid={user}\nfirst_valid_uid=1\nssl=no\nnamespace inbox {{\n  inbox=yes\n  separator=/\n}}\n",
            run = run.display(),
            log = dir.join(format!("{name}.log")).display(),
        );
        fs::write(&conf, text).expect("the work directory takes files");
        Account { home, conf }
    }

    fn mail(&self) -> PathBuf {
        self.home.join("Maildir")
    }

    /// Gives everything to the user that Dovecot runs as.
    fn own(&self) {
        if fs::metadata(&self.conf).expect("it is there").uid() == 0 {
            give(&self.home);
        }
    }

    fn doveadm(&self) -> Command {
        let mut command = Command::new("doveadm");
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .arg("-c")
            .arg(&self.conf)
            .env_clear()
            .env("PATH", path)
            .env("USER", "u")
            .env("HOME", &self.home);
        command
    }

    /// The same for a shell.
    fn line(&self, wire: &str) -> String {
        // Nothing else: doveadm hands its own configuration down in the environment.
        let (home, conf) = (self.home.display(), self.conf.display());
        format!("env -i PATH=\"$PATH\" USER=u HOME={home} {wire} doveadm -c {conf}")
    }

    /// Lets Dovecot see all mail, as a server in use has.
    fn warm(&self) {
        let mut command = self.doveadm();
        let seen = command.args(["mailbox", "status", "messages", "*"]).stdout(Stdio::null()).status();
        assert!(seen.is_ok_and(|status| status.success()), "Dovecot does not see its mail");
    }
}

fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root gives files away");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => give(&entry.path()),
            false => chown(entry.path(), Some(NOBODY), Some(NOBODY)).expect("root gives files away"),
        }
    }
}

/// `doveadm sync` with its state kept from one run to the next.
#[derive(Default)]
struct Dsync {
    a: Account,
    b: Account,
    dir: PathBuf,
    state: String,
}

impl Peer for Dsync {
    fn name(&self) -> &'static str {
        "dsync"
    }

    fn installed(&self) -> bool {
        is_there("doveadm")
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        (self.a, self.b, self.dir) = (Account::new(dir, "a"), Account::new(dir, "b"), dir.to_owned());
        let a = mail.copy(&self.a.mail());
        self.changed();
        self.a.warm();
        (a, Tree::at(&self.b.mail()))
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let remote = script(&self.dir.join("remote"), &format!("exec {} dsync-server", self.b.line(wire)));
        let mut command = self.a.doveadm();
        command.args(["sync", "-s", &self.state, &remote]);
        vec![command]
    }

    fn printed(&mut self, out: &str) {
        self.state = out.lines().last().unwrap_or_default().to_owned();
    }

    fn changed(&self) {
        self.a.own();
        self.b.own();
    }
}

/// mbsync with Dovecot's IMAP server through a pipe.
#[derive(Default)]
struct Mbsync {
    a: Account,
    dir: PathBuf,
}

impl Peer for Mbsync {
    fn name(&self) -> &'static str {
        "mbsync"
    }

    fn installed(&self) -> bool {
        is_there("mbsync") && is_there("doveadm")
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        (self.a, self.dir) = (Account::new(dir, "a"), dir.to_owned());
        let a = mail.copy(&self.a.mail());
        self.changed();
        self.a.warm();
        fs::create_dir(dir.join("state")).expect("the work directory takes directories");
        (a, Tree::empty(&dir.join("b")))
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let (dir, remote) = (self.dir.display(), script(&self.dir.join("remote"), &tunnel(&self.a, wire)));
        let text = format!(
            "IMAPStore far\nTunnel {remote}\n\nMaildirStore near\nInbox {dir}/b\nSubFolders Maildir++\n\n\
             Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nCopyArrivalDate yes\n\
             SyncState {dir}/state/\n"
        );
        let file = self.dir.join("mbsyncrc");
        fs::write(&file, text).expect("the work directory takes files");
        let mut command = Command::new("mbsync");
        command.args(["-q", "-a", "-c"]).arg(file).env("HOME", &self.dir);
        vec![command]
    }

    fn changed(&self) {
        self.a.own();
    }
}

/// An IMAP session that is logged in, on standard input and output.
fn tunnel(account: &Account, wire: &str) -> String {
    format!("exec {} exec imap", account.line(wire))
}

/// muchsync, with a notmuch database on each side.
#[derive(Default)]
struct Muchsync {
    dir: PathBuf,
}

impl Muchsync {
    fn notmuch(&self, side: &str) -> [(&'static str, PathBuf); 2] {
        [
            ("NOTMUCH_CONFIG", self.dir.join(format!("{side}.cfg"))),
            ("HOME", self.dir.join(format!("home-{side}"))),
        ]
    }
}

impl Peer for Muchsync {
    fn name(&self) -> &'static str {
        "muchsync"
    }

    fn installed(&self) -> bool {
        is_there("muchsync") && is_there("notmuch")
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        self.dir = dir.to_owned();
        // notmuch passes over directories whose names begin with a dot.
        let a = Tree::at(&dir.join("a"));
        fs::create_dir(&a.root).expect("the work directory takes directories");
        for folder in mail.folders() {
            let name = if folder.is_empty() { "INBOX" } else { &folder[1..] };
            for sub in ["cur", "new", "tmp"] {
                fs::create_dir_all(a.root.join(name)).expect("the work directory takes directories");
                Tree::at(&mail.root.join(&folder).join(sub)).copy(&a.root.join(name).join(sub));
            }
        }
        let b = Tree::at(&dir.join("b"));
        fs::create_dir(&b.root).expect("the work directory takes directories");
        for (side, tree) in [("a", &a), ("b", &b)] {
            let text = format!(
                "[database]\npath={}\n[user]\nname=u\nprimary_email=u@example.org\n[new]\ntags=new\nignore=\n[search]\n\
                 exclude_tags=\n[maildir]\nsynchronize_flags=true\n",
                tree.root.display()
            );
            fs::write(dir.join(format!("{side}.cfg")), text).expect("the work directory takes files");
            fs::create_dir(dir.join(format!("home-{side}"))).expect("the work directory takes directories");
            let seen = Command::new("notmuch").args(["new", "--quiet"]).envs(self.notmuch(side)).status();
            assert!(seen.is_ok_and(|status| status.success()), "notmuch does not see its mail");
        }
        (a, b)
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let [config, home] = self.notmuch("b").map(|(name, value)| format!("{name}={}", value.display()));
        let text = format!("shift\nexec env '{config}' '{home}' {wire} sh -c \"exec $*\"");
        let shell = script(&self.dir.join("rsh"), &text);
        let mut command = Command::new("muchsync");
        command.args(["-s", &shell, "host"]).envs(self.notmuch("a"));
        vec![command]
    }
}

/// OfflineIMAP with Dovecot's IMAP server through a pipe.
#[derive(Default)]
struct OfflineImap {
    a: Account,
    dir: PathBuf,
}

impl Peer for OfflineImap {
    fn name(&self) -> &'static str {
        "offlineimap"
    }

    fn installed(&self) -> bool {
        is_there("offlineimap") && is_there("doveadm")
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        (self.a, self.dir) = (Account::new(dir, "a"), dir.to_owned());
        let a = mail.copy(&self.a.mail());
        self.changed();
        self.a.warm();
        fs::create_dir(dir.join("b")).expect("the work directory takes directories");
        (a, Tree::at(&dir.join("b")))
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let (dir, remote) = (self.dir.display(), script(&self.dir.join("remote"), &tunnel(&self.a, wire)));
        let text = format!(
            "[general]\naccounts = a\nmetadata = {dir}/state\nui = quiet\n\n[Account a]\nlocalrepository = l\n\
             remoterepository = r\nmaxsyncaccounts = 1\n\n[Repository l]\ntype = Maildir\nlocalfolders = {dir}/b\nsep = .\n\n\
             [Repository r]\ntype = IMAP\npreauthtunnel = {remote}\nssl = no\nstarttls = no\nmaxconnections = 1\n"
        );
        let file = self.dir.join("offlineimaprc");
        fs::write(&file, text).expect("the work directory takes files");
        let mut command = Command::new("offlineimap");
        command.args(["-o", "-c"]).arg(file).env("HOME", &self.dir);
        vec![command]
    }

    fn changed(&self) {
        self.a.own();
    }
}
