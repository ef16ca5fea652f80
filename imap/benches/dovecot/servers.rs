//! The two servers, each with one user whose INBOX is some mail.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::daemon::{Dovecot, PASSWORD};
use crate::mail::Inbox;
use crate::meter::Tree;

const USER: &str = "bench";

/// Longest wait for a server to greet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Many connections of one user from one address, and no limit of its own on the way.
const MANY: &str = "default_client_limit = 20000\ndefault_process_limit = 5000\nmail_max_userip_connections = 0\n\
                    service imap-login {\n  service_count = 0\n}\n";

/// The same for ours.
const MANY_TO_US: &str = "[imap_limits]\nconnections_per_address = 4000\n";

/// A server that runs until this is dropped.
pub(crate) struct Server {
    address: String,
    pub(crate) tree: Tree,
    kind: Kind,
}

enum Kind {
    Dovecot { _daemon: Dovecot },
    Postmerge { program: Postmerge, daemon: Child },
}

impl Server {
    /// Dovecot on a copy of the mail, with its caches warm.
    pub(crate) fn dovecot(work: &Path, inbox: &Inbox) -> Server {
        let daemon = Dovecot::start(work, MANY);
        inbox.copy_to(&daemon.maildir(USER));
        daemon.hand_over();
        let (address, tree) = (daemon.address(), Tree(daemon.pid()));
        Server { address, tree, kind: Kind::Dovecot { _daemon: daemon } }
    }

    /// A new account that imported the mail.
    pub(crate) fn postmerge(binary: &Path, work: &Path, inbox: &Inbox) -> Server {
        let program = Postmerge { binary: binary.into(), dir: TempDir::new_in(work).expect("a directory") };
        program.run(&["init".as_ref(), "--name".as_ref(), USER.as_ref()], "");
        program.run(&["import".as_ref(), inbox.dir.as_os_str()], "");
        program.run(&["user".as_ref(), "add".as_ref(), USER.as_ref()], PASSWORD);
        let config = program.dir.path().join("bench.toml");
        std::fs::write(&config, MANY_TO_US).expect("a directory takes files");
        let any = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = any.expect("loopback has a port").to_string();
        let arguments = [
            "serve".as_ref(),
            "--offline".as_ref(),
            "--imap".as_ref(),
            address.as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ];
        let mut daemon =
            program.command(&arguments).stdin(Stdio::null()).spawn().expect("the program starts");
        wait_for_greeting(&address, &mut daemon);
        let tree = Tree(daemon.id());
        Server { address, tree, kind: Kind::Postmerge { program, daemon } }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.address, USER, PASSWORD)
    }

    /// A new connection with INBOX selected.
    pub(crate) fn select(&self) -> Client {
        let mut client = self.connect();
        client.command("SELECT INBOX");
        client
    }

    /// Changes in the document; nothing where there is none.
    pub(crate) fn changes(&self) -> Option<u64> {
        let Kind::Postmerge { program, .. } = &self.kind else { return None };
        let status = program.run(&["status", "--json"].map(OsStr::new), "");
        serde_json::from_slice::<serde_json::Value>(&status).ok()?["changes"].as_u64()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Kind::Postmerge { daemon, .. } = &mut self.kind {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The program in a home of its own.
struct Postmerge {
    binary: PathBuf,
    dir: TempDir,
}

impl Postmerge {
    fn command(&self, arguments: &[&OsStr]) -> Command {
        let home = self.dir.path();
        let mut command = Command::new(&self.binary);
        command.arg("--store").arg(home.join("store")).args(arguments);
        for variable in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env(variable, home);
        }
        // Sockets want a directory that is nobody else's, which the program makes in here.
        command.env("XDG_RUNTIME_DIR", home.join("run"));
        for variable in ["POSTMERGE_STORE", "POSTMERGE_CONFIG", "POSTMERGE_LOG"] {
            command.env_remove(variable);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs it to its end and wants it to succeed; gives its standard output.
    fn run(&self, arguments: &[&OsStr], input: &str) -> Vec<u8> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // A command that reads nothing may have ended already.
        let _ = child.stdin.take().expect("it was asked for").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it is our child");
        // `status` says by its exit code whether anything serves.
        let fine = output.status.success() || arguments.first() == Some(&OsStr::new("status"));
        assert!(fine, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// Whether the program has an IMAP server.
pub(crate) fn serves_imap(binary: &Path) -> bool {
    let help = Command::new(binary).args(["serve", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--imap"))
}

fn wait_for_greeting(address: &str, daemon: &mut Child) {
    let start = Instant::now();
    loop {
        if let Some(status) = daemon.try_wait().expect("it is our child") {
            panic!("serve ended with {status}");
        }
        let mut greeting = [0; 4];
        if TcpStream::connect(address).and_then(|mut stream| stream.read_exact(&mut greeting)).is_ok() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "serve does not greet");
        std::thread::sleep(Duration::from_millis(10));
    }
}
