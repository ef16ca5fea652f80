//! Two replicas with a Maildir each; the one that has no mail yet runs `sync`, and starts the other.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mail::Tree;
use crate::peers::Peer;

/// What our column is called.
pub(crate) const NAME: &str = "postmerge";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Postmerge {
    dir: PathBuf,
    /// Where the first replica is reached.
    address: String,
}

impl Postmerge {
    /// The program on one of its two stores, in surroundings of its own.
    pub(crate) fn program(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postmerge"));
        command.arg("--store").arg(self.dir.join(store)).args(arguments).current_dir(&self.dir);
        command.env("XDG_RUNTIME_DIR", self.dir.join("run")).env("HOME", &self.dir);
        for variable in ["STATE", "CONFIG", "DATA", "CACHE"] {
            command.env(format!("XDG_{variable}_HOME"), self.dir.join(variable));
        }
        for variable in ["POSTMERGE_STORE", "POSTMERGE_CONFIG", "POSTMERGE_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Runs it to its end and gives what it printed.
    pub(crate) fn ok(&self, store: &str, arguments: &[&str]) -> String {
        let done = self.program(store, arguments).output().expect("the program starts");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    pub(crate) fn status(&self, store: &str) -> Value {
        let done = self.program(store, &["status", "--json"]).output().expect("the program starts");
        serde_json::from_slice(&done.stdout).unwrap_or_default()
    }

    /// A daemon that answers.
    pub(crate) fn serve(&self, store: &str, listen: &str) -> Daemon {
        let mut command = self.program(store, &["serve", "--listen", listen]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let daemon = Daemon(child.expect("the program starts"));
        wait_until("serve to answer", || self.status(store)["serving"] == true);
        daemon
    }
}

impl Peer for Postmerge {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&mut self, dir: &Path, mail: &Tree) -> (Tree, Tree) {
        self.dir = dir.to_owned();
        std::fs::create_dir(dir.join("run")).expect("the work directory takes directories");
        let (a, b) = (mail.copy(&dir.join("mail-a")), Tree::empty(&dir.join("mail-b")));
        self.ok("a", &["init", "--name", "alpha"]);
        self.address = free_address();
        let daemon = self.serve("a", &self.address);
        let ticket = self.ok("a", &["invite"]).trim().to_owned();
        self.ok("b", &["join", &ticket, "--name", "beta"]);
        daemon.stop();
        (a, b)
    }

    fn first(&mut self, wire: &str) -> Vec<Command> {
        let attach = |store, mail| self.program(store, &["maildir", "attach", mail]);
        let mut commands = vec![attach("a", "mail-a"), attach("b", "mail-b")];
        commands.extend(self.sync(wire));
        commands
    }

    fn sync(&mut self, wire: &str) -> Vec<Command> {
        let through = format!(
            "exec {wire} {} --store {} stdio",
            env!("CARGO_BIN_EXE_postmerge"),
            self.dir.join("a").display()
        );
        vec![self.program("b", &["sync", "--via", &through])]
    }

    fn ours(&self) -> Option<&Postmerge> {
        Some(self)
    }
}

/// A daemon; it ends when this is dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// An address on loopback that nobody has now.
fn free_address() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.local_addr().expect("it is bound").to_string()
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
