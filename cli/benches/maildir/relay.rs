//! This program as the wire: starts a command, passes its input and output on, counts both, and lets them wait if so asked.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What makes this program one: `--relay FILE MICROSECONDS COMMAND...`.
pub(crate) const FLAG: &str = "--relay";

/// Large enough that a pipe is emptied at once.
const BUFFER: usize = 64 << 10;

/// What goes over the wire in one run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    /// CPU seconds of the relay itself, which are nobody's.
    pub(crate) cpu: f64,
}

/// Where a command's relay leaves its figures.
pub(crate) struct Relay {
    file: PathBuf,
    delay: Duration,
}

impl Relay {
    pub(crate) fn new(dir: &Path, round_trip: Duration) -> Relay {
        Relay { file: dir.join("carried"), delay: round_trip / 2 }
    }

    /// What the shell is told to start in place of a command: put it before the command's words.
    pub(crate) fn prefix(&self) -> String {
        let program = std::env::current_exe().expect("a program knows where it is");
        format!("{} {FLAG} {} {}", program.display(), self.file.display(), self.delay.as_micros())
    }

    /// The figures of the run that has ended.
    pub(crate) fn carried(&self) -> Carried {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let mut sum = Carried::default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
            sum.bytes += next() as u64;
            sum.cpu += next();
        }
        let _ = fs::remove_file(&self.file);
        sum
    }
}

/// Runs as the relay.
pub(crate) fn run(arguments: &[String]) {
    let [file, delay, command, rest @ ..] = arguments else {
        panic!("a relay takes a file, a delay, a command")
    };
    let delay = Duration::from_micros(delay.parse().expect("microseconds"));
    let mut child = Command::new(command);
    let mut child =
        child.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command starts");
    let (to, from) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    // It may wait for input for ever; then it ends with the process.
    let (tell, up) = mpsc::channel();
    std::thread::spawn(move || carry(std::io::stdin(), to, delay, &tell));
    let (tell_down, down) = mpsc::channel();
    carry(from, std::io::stdout(), delay, &tell_down);
    drop(tell_down);
    let status = child.wait().expect("it is our child");
    let bytes: u64 = up.try_iter().chain(down.try_iter()).sum();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let mut out = fs::OpenOptions::new().append(true).create(true).open(file).expect("the file opens");
    writeln!(out, "{bytes} {cpu}").expect("the file takes a line");
    std::process::exit(status.code().unwrap_or(1));
}

/// Carries one direction to its end; a delayed part waits, and the next is read meanwhile.
fn carry(mut from: impl Read, mut to: impl Write + Send, delay: Duration, tell: &mpsc::Sender<u64>) {
    let mut buffer = vec![0; BUFFER];
    if delay.is_zero() {
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let _ = tell.send(count as u64);
            if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                return;
            }
        }
        return;
    }
    let (send, parts) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (due, part) in parts {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&part).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        });
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let _ = tell.send(count as u64);
            if send.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
        drop(send);
    });
}
