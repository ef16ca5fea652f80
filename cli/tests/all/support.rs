//! Runs the program in a world of its own.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything; a loaded machine needs a fraction.
const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary directory that the program takes for the user's.
pub(crate) struct World {
    dir: TempDir,
    program: PathBuf,
    /// Whom the program runs as, if not as the test does.
    user: Option<u32>,
}

impl World {
    pub(crate) fn new() -> World {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_postmerge"));
        let world = World { dir: TempDir::new().unwrap(), program, user: None };
        std::fs::DirBuilder::new().mode(0o700).create(world.path("run")).unwrap();
        world
    }

    /// One in which the program runs as another user, if the test runs as root; `give` gives that user a directory.
    pub(crate) fn of(user: u32, give: impl FnOnce(&Path)) -> World {
        let mut world = World::new();
        if rustix::process::getuid().is_root() {
            // That user may be unable to reach the other one.
            let program = world.path("postmerge");
            std::fs::copy(&world.program, &program).unwrap();
            (world.program, world.user) = (program, Some(user));
            give(world.dir.path());
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program on a store of this world.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, store: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--store").arg(self.path(store)).args(arguments).current_dir(self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("HOME", self.dir.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        for (variable, dir) in
            [("STATE", "state"), ("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache")]
        {
            command.env(format!("XDG_{variable}_HOME"), self.path(dir));
        }
        for variable in ["POSTMERGE_STORE", "POSTMERGE_CONFIG", "POSTMERGE_LOG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs it to its end, with `input` on standard input.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, store: &str, arguments: &[S], input: &[u8]) -> Done {
        let mut command = self.command(store, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The program may end without reading it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        Done::new(output)
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, store: &str, arguments: &[S]) -> Done {
        self.run_with(store, arguments, b"")
    }

    /// Runs it and wants it to succeed; gives its standard output.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, store: &str, arguments: &[S]) -> String {
        self.run(store, arguments).ok()
    }

    /// The same for `--json`.
    #[track_caller]
    pub(crate) fn json<S: AsRef<OsStr>>(&self, store: &str, arguments: &[S]) -> Value {
        serde_json::from_str(&self.ok(store, arguments)).unwrap()
    }

    /// Adds a message and gives its UID and entry.
    #[track_caller]
    pub(crate) fn append(&self, store: &str, mailbox: &str, message: &str) -> (u64, String) {
        let done = self.run_with(store, &["append", mailbox, "--json"], message.as_bytes()).ok();
        let added: Value = serde_json::from_str(&done).unwrap();
        (added["uid"].as_u64().unwrap(), added["entry"].as_str().unwrap().to_owned())
    }

    /// Starts `serve` and waits until it is ready.
    #[track_caller]
    pub(crate) fn serve(&self, store: &str, arguments: &[&str]) -> Serve {
        let arguments = [&["serve"], arguments].concat();
        let mut command = self.command(store, &arguments);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut serve = Serve(child);
        until("serve to be ready", || {
            if let Some(status) = serve.0.try_wait().unwrap() {
                let mut said = String::new();
                serve.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("serve ended with {status}: {said}");
            }
            self.run(store, &["status"]).code == 0
        });
        serve
    }

    /// A field of `status`, which also answers where nothing is served.
    #[track_caller]
    pub(crate) fn status(&self, store: &str, field: &str) -> Value {
        let done = self.run(store, &["status", "--json"]);
        let status: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
        status[field].clone()
    }

    /// Everything that a store shows, by mailbox.
    #[track_caller]
    pub(crate) fn view(&self, store: &str) -> Vec<(Value, Value)> {
        let Value::Array(mailboxes) = self.json(store, &["mailboxes", "--json"]) else { panic!("no list") };
        let messages = |mailbox: Value| {
            let shown = self.json(store, &["messages", mailbox["name"].as_str().unwrap(), "--json"]);
            (mailbox, shown)
        };
        mailboxes.into_iter().map(messages).collect()
    }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    fn new(output: Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Wants it to fail so, and to say this.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &str) {
        assert!(self.code == code && self.err.contains(words), "not {code} {words:?}: {self:?}");
    }
}

/// A daemon; it is killed when the test ends.
pub(crate) struct Serve(Child);

impl Serve {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn stop(self) -> Option<i32> {
        self.end(rustix::process::Signal::TERM)
    }

    /// Sends a signal that ends it; gives the exit code.
    pub(crate) fn end(mut self, with: rustix::process::Signal) -> Option<i32> {
        signal(self.pid(), with);
        self.0.wait().unwrap().code()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a condition, which takes its time to look.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Every file below a directory, with its bytes.
pub(crate) fn files(root: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
                }
            }
        }
    }
    found
}
