//! A Dovecot of our own: a daemon with its configuration in a temporary directory, on loopback, for any user name and
//! one password. Runs as root, whose mail it then serves as nobody, or as an ordinary user.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Logs anybody in.
pub(crate) const PASSWORD: &str = "only-for-tests-1";

/// Dovecot gives no mail to root.
const NOBODY: u32 = 65534;

/// Longest wait for the daemon; a loaded machine needs a fraction.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a port is drawn anew that somebody else took first.
const PORTS: usize = 5;

/// A daemon. It ends, and its directory goes away, when this is dropped.
pub(crate) struct Dovecot {
    daemon: Child,
    port: u16,
    dir: TempDir,
}

impl Dovecot {
    /// Starts one below `work`; `settings` go to the end of its configuration. Returns once it greets.
    ///
    /// # Panics
    /// If Dovecot is not installed or does not start; with its log.
    pub(crate) fn start(work: &Path, settings: &str) -> Dovecot {
        let dir = TempDir::new_in(work).expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        for name in ["mail", "run"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory takes directories");
        }
        if owner(dir.path()) == 0 {
            give(&dir.path().join("mail"));
        }
        for _ in 0..PORTS {
            let (mut daemon, port) = run(dir.path(), settings);
            if greets(&mut daemon, port) {
                return Dovecot { daemon, port, dir };
            }
            let _ = std::fs::remove_file(dir.path().join("run/master.pid"));
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("Dovecot does not start: {log}");
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its first process, parent of all others.
    #[allow(dead_code, reason = "only the bench looks at processes")]
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The Maildir of a user, who need not exist yet. After writing there [`Dovecot::hand_over`] is due.
    #[allow(dead_code, reason = "only the bench brings mail along")]
    pub(crate) fn maildir(&self, user: &str) -> PathBuf {
        self.dir.path().join("mail").join(user)
    }

    /// Lets the daemon own all mail.
    #[allow(dead_code, reason = "only the bench brings mail along")]
    pub(crate) fn hand_over(&self) {
        if owner(self.dir.path()) == 0 {
            give(&self.dir.path().join("mail"));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGKILL would leave its children behind.
        let pid = i32::try_from(self.daemon.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
    }
}

/// Whether there is a Dovecot on this machine.
#[allow(dead_code, reason = "tests say in their `ignore` what they need")]
pub(crate) fn installed() -> bool {
    Command::new("dovecot")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Waits for the greeting; false if the daemon ends instead.
fn greets(daemon: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while daemon.try_wait().expect("it is our child").is_none() {
        let greeting = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut start = [0; 4];
            stream.read_exact(&mut start).map(|()| start)
        });
        if greeting.is_ok_and(|start| start == *b"* OK") {
            return true;
        }
        assert!(start.elapsed() < PATIENCE, "Dovecot neither greets nor ends");
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn run(dir: &Path, settings: &str) -> (Child, u16) {
    let any = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = any.expect("loopback has a port").port();
    let config = dir.join("dovecot.conf");
    std::fs::write(&config, configuration(dir, port) + settings).expect("a directory takes files");
    let mut command = Command::new("dovecot");
    // Internal dates and the bench's Maildir times are compared in UTC.
    command.arg("-F").arg("-c").arg(config).env("TZ", "UTC").current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (command.spawn().expect("dovecot is installed"), port)
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir_text = dir.display();
    let mut config = format!(
        "base_dir = {dir_text}/run\nstate_dir = {dir_text}/run\nlog_path = {dir_text}/log\nprotocols = imap\nssl = no\n\
         disable_plaintext_auth = no\nauth_mechanisms = plain\nfirst_valid_uid = 1\n\
         mail_location = maildir:{dir_text}/mail/%u\n\
         passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
         userdb {{\n  driver = static\n  args = home={dir_text}/mail/%u\n}}\n\
         namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n\
         service imap-login {{\n  inet_listener imap {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n  \
         inet_listener imaps {{\n    port = 0\n  }}\n}}\n"
    );
    if owner(dir) == 0 {
        config.push_str(&format!("mail_uid = {NOBODY}\nmail_gid = {NOBODY}\n"));
    } else {
        // An ordinary user can neither change to another one nor confine a process.
        let (user, group) = (id("-un"), id("-gn"));
        config.push_str(&format!(
            "default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n"
        ));
        for service in ["imap-login", "anvil", "stats"] {
            config.push_str(&format!("service {service} {{\n  chroot =\n}}\n"));
        }
    }
    config
}

/// What the command `id` says of this user.
fn id(option: &str) -> String {
    let output = Command::new("id").arg(option).output().expect("there is an id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn owner(path: &Path) -> u32 {
    path.metadata().expect("the directory is there").uid()
}

fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root gives away");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("the directory can be read") {
            give(&entry.expect("the directory can be read").path());
        }
    }
}
