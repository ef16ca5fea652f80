//! A real Dovecot on a Maildir: its imap process, spoken to over pipes and logged in already, so that no daemon, port or
//! password is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

/// Dovecot gives no mail to root, so a test that runs as root has it served as nobody.
pub(crate) const NOBODY: u32 = 65534;

/// A Maildir and the configuration of a Dovecot that serves it.
pub(crate) struct Dovecot(TempDir);

/// What a mailbox looks like to a mail client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) validity: u32,
    pub(crate) next: u32,
    pub(crate) messages: BTreeMap<u32, Message>,
}

/// A message, as FETCH tells it; lines end in CR LF.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    pub(crate) flags: BTreeSet<String>,
    pub(crate) date: String,
    pub(crate) body: String,
}

impl Dovecot {
    /// An empty one.
    pub(crate) fn new() -> Dovecot {
        let dovecot = Dovecot(TempDir::new().unwrap());
        let (dir, mail) = (dovecot.0.path(), dovecot.mail());
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(&mail).unwrap();
        let mut config = format!(
            "base_dir = {0}/run\nlog_path = {0}/log\nssl = no\nmail_location = maildir:{1}\n\
             namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n",
            dir.display(),
            mail.display()
        );
        if rustix::process::getuid().is_root() {
            config.push_str(&format!("mail_uid = {NOBODY}\nmail_gid = {NOBODY}\n"));
        }
        std::fs::write(dir.join("dovecot.conf"), config).unwrap();
        std::fs::write(dir.join("log"), "").unwrap();
        std::fs::set_permissions(dir.join("log"), PermissionsExt::from_mode(0o666)).unwrap();
        dovecot.hand_over();
        dovecot
    }

    /// One that serves a Maildir somebody else wrote.
    pub(crate) fn on(maildir: &Path) -> Dovecot {
        let dovecot = Dovecot::new();
        std::fs::remove_dir(dovecot.mail()).unwrap();
        std::fs::rename(maildir, dovecot.mail()).unwrap();
        dovecot.hand_over();
        dovecot
    }

    /// Its Maildir.
    pub(crate) fn mail(&self) -> PathBuf {
        self.0.path().join("mail")
    }

    /// Starts the process of a connection.
    fn start(&self) -> Child {
        let mut command = Command::new("doveadm");
        command.arg("-c").arg(self.0.path().join("dovecot.conf")).args(["exec", "imap"]);
        command.env("USER", "tester").env("HOME", self.0.path()).env("TZ", "UTC").current_dir(self.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Answers on a port of loopback while `act` runs, for programs that connect by themselves. Whoever connects is logged
    /// in: the process would refuse a socket of its own, as one of inetd's.
    pub(crate) fn listen<T>(&self, act: impl FnOnce(u16) -> T) -> T {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    self.pump(&stream.unwrap());
                }
            });
            let done = act(address.port());
            over.store(true, Ordering::SeqCst);
            drop(TcpStream::connect(address));
            done
        })
    }

    /// Carries one connection to its end.
    fn pump(&self, stream: &TcpStream) {
        let mut child = self.start();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                carry(stream, &mut input);
                // So that the process hears of it.
                drop(input);
            });
            carry(&mut output, stream);
            // The process has ended, or the other side has gone.
            let _ = stream.shutdown(Shutdown::Both);
        });
        let _ = child.wait();
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Imap {
        let mut child = self.start();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut imap = Imap { child, input, output };
        let greeting = imap.response();
        let log = std::fs::read_to_string(self.0.path().join("log")).unwrap();
        assert!(greeting.starts_with("* PREAUTH "), "{greeting:?} {log}");
        imap
    }

    fn hand_over(&self) {
        if rustix::process::getuid().is_root() {
            give(&self.mail());
        }
    }
}

pub(crate) fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// Passes on at once what arrives: `io::copy` would splice, and a short answer then stays in the kernel for seconds.
fn carry(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// A connection. It waits for each answer.
pub(crate) struct Imap {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Imap {
    /// Sends a command and wants OK; gives the untagged responses, literals included.
    #[track_caller]
    pub(crate) fn command(&mut self, line: &str) -> Vec<String> {
        write!(self.input, "a {line}\r\n").unwrap();
        let mut untagged = Vec::new();
        loop {
            let response = self.response();
            if let Some(result) = response.strip_prefix("a ") {
                assert!(result.starts_with("OK"), "{line}: {response}");
                return untagged;
            }
            untagged.push(response);
        }
    }

    /// Adds a message; `mailbox` is in modified UTF-7.
    #[track_caller]
    pub(crate) fn append(&mut self, mailbox: &str, flags: &str, date: &str, body: &str) {
        self.command(&format!("APPEND \"{mailbox}\" ({flags}) \"{date}\" {{{}+}}\r\n{body}", body.len()));
    }

    /// Everything that a client can know of a mailbox.
    #[track_caller]
    pub(crate) fn look(&mut self, mailbox: &str) -> Told {
        let opened = self.command(&format!("EXAMINE \"{mailbox}\""));
        let code = |name: &str| {
            let found = opened.iter().find_map(|line| line.strip_prefix(&format!("* OK [{name} ")));
            found.unwrap().split_once(']').unwrap().0.parse().unwrap()
        };
        let (validity, next) = (code("UIDVALIDITY"), code("UIDNEXT"));
        let fetched = self.command("UID FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])");
        let messages = fetched.iter().filter(|line| line.contains(" FETCH (")).map(|line| message(line));
        Told { validity, next, messages: messages.collect() }
    }

    /// The names of mailboxes, in modified UTF-7, that `LIST` or `LSUB` gives.
    #[track_caller]
    pub(crate) fn names(&mut self, command: &str) -> BTreeSet<String> {
        let listed = self.command(&format!("{command} \"\" *"));
        let name = |line: &String| line.rsplit_once(" \"/\" ").unwrap().1.trim_matches('"').to_owned();
        listed.iter().map(name).collect()
    }

    /// A line, without its end; a literal stands in the place of its announcement.
    fn response(&mut self) -> String {
        let mut response = String::new();
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            let line = line.trim_end_matches("\r\n");
            let announced = line.strip_suffix('}').and_then(|line| line.rsplit_once('{'));
            let Some((before, length)) = announced else {
                response.push_str(line);
                return response;
            };
            let mut literal = vec![0; length.parse().unwrap()];
            self.output.read_exact(&mut literal).unwrap();
            response.push_str(before);
            response.push_str(&String::from_utf8(literal).unwrap());
        }
    }
}

impl Drop for Imap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads `* 1 FETCH (UID 1 FLAGS (\Seen) INTERNALDATE "..." BODY[] ...)`, in the order in which Dovecot gives them.
fn message(line: &str) -> (u32, Message) {
    let between = |start: &str, end: &str| {
        let rest = line.split_once(start).unwrap().1;
        rest.split_once(end).unwrap().0
    };
    let uid = between("(UID ", " ").parse().unwrap();
    // It belongs to the session and not to the message.
    let flags = between("FLAGS (", ")").split_whitespace().filter(|flag| *flag != "\\Recent");
    let body = line.split_once("BODY[] ").unwrap().1.strip_suffix(')').unwrap();
    let flags = flags.map(ToOwned::to_owned).collect();
    (uid, Message { flags, date: between("INTERNALDATE \"", "\"").to_owned(), body: body.to_owned() })
}
