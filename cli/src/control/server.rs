//! The daemon's side: runs the commands of clients, each in a thread.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use postmerge::replica::Replica;

use super::{PIECE, PROTOCOL, Sender, kind, read_frame};
use crate::args::Cli;
use crate::context::{Code, Context, Serving};
use crate::failure::Failure;
use crate::paths::Setup;
use crate::progress::{self, Step};

/// Most commands at once: people and scripts use a handful; each has a thread and a few buffers.
const MAX_COMMANDS: usize = 64;
/// Commands that run when the daemon is to stop have this long to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listening socket; it is removed when this is stopped.
pub(crate) struct Control {
    path: PathBuf,
    running: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

struct Host {
    setup: Arc<Setup>,
    replica: Replica,
    serving: Serving,
}

impl Control {
    /// Listens. The caller holds the store, so a socket that is left there is nobody's.
    pub(crate) fn start(setup: Arc<Setup>, replica: Replica, serving: Serving) -> anyhow::Result<Control> {
        setup.prepare_sockets()?;
        let path = setup.socket();
        let _ = std::fs::remove_file(&path);
        let listen = || {
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            io::Result::Ok(listener)
        };
        let listener = listen().with_context(|| format!("cannot listen on {}", path.display()))?;
        let running = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let control = Control { path, running: Arc::clone(&running), stopping: Arc::clone(&stopping) };
        let host = Arc::new(Host { setup, replica, serving });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let place = Place::take(&running);
                if stopping.load(Ordering::SeqCst) || running.load(Ordering::SeqCst) > MAX_COMMANDS {
                    continue;
                }
                let host = Arc::clone(&host);
                std::thread::spawn(move || {
                    let _place = place;
                    if let Err(error) = host.serve(stream) {
                        tracing::debug!(%error, "a client went away");
                    }
                });
            }
        });
        Ok(control)
    }

    /// Takes no more commands and waits for those that run, for a while.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = std::fs::remove_file(&self.path);
        let start = Instant::now();
        while self.running.load(Ordering::SeqCst) > 0 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Counts a command while it runs.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(running: &Arc<AtomicUsize>) -> Place {
        running.fetch_add(1, Ordering::SeqCst);
        Place(Arc::clone(running))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Host {
    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let sender = Sender::new(stream.try_clone()?);
        let (kind, request) = read_frame(&mut stream)?;
        let fields: Vec<&[u8]> = request.split(|byte| *byte == 0).collect();
        let (true, [PROTOCOL, cwd, arguments @ ..]) = (kind == kind::REQUEST, &fields[..]) else {
            sender.send(kind::ERR, b"error: another version of postmerge serves the store\n")?;
            return sender.send(kind::EXIT, &[Code::FAILED.value()]);
        };
        let arguments = arguments.iter().map(|argument| std::ffi::OsStr::from_bytes(argument));
        let steps = sender.clone();
        let cx = Context {
            replica: self.replica.clone(),
            setup: &self.setup,
            hub: Arc::clone(&self.serving.hub),
            serving: Some(&self.serving),
            cwd: PathBuf::from(std::ffi::OsStr::from_bytes(cwd)),
            out: Box::new(Output(sender.clone(), kind::OUT)),
            err: Box::new(Output(sender.clone(), kind::ERR)),
            input: Box::new(Input::new(stream.try_clone()?, sender.clone())),
            progress: progress::paced(Box::new(move |step: Step| {
                let _ = steps.send(kind::PROGRESS, &serde_json::to_vec(&step).expect("a step is JSON"));
            })),
        };
        let code = match Cli::read(arguments) {
            Ok(cli) => run(&cli, cx),
            Err(error) => {
                write!(Output(sender.clone(), kind::ERR), "{error}")?;
                Code::USAGE
            }
        };
        let told = sender.send(kind::EXIT, &[code.value()]);
        // A thread may still wait for input.
        let _ = stream.shutdown(std::net::Shutdown::Read);
        told
    }
}

fn run(cli: &Cli, mut cx: Context<'_>) -> Code {
    let result = cli.command.run(&mut cx).and_then(|code| Ok(cx.out.flush().map(|()| code)?));
    result.unwrap_or_else(|error| {
        let failure = Failure::of(&error, &cli.verb);
        failure.print(&mut cx.err);
        failure.code()
    })
}

/// What a command prints.
struct Output(Sender, u8);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE);
        self.0.send(self.1, &bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A command's standard input: asked for once it is read.
struct Input {
    stream: UnixStream,
    sender: Sender,
    asked: bool,
    ended: bool,
    piece: Vec<u8>,
    at: usize,
}

impl Input {
    fn new(stream: UnixStream, sender: Sender) -> Input {
        Input { stream, sender, asked: false, ended: false, piece: Vec::new(), at: 0 }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.asked {
            self.sender.send(kind::WANT_INPUT, &[])?;
            self.asked = true;
        }
        while self.at == self.piece.len() && !self.ended {
            // A client that dies in the middle must not leave half a message: its input has not ended.
            match read_frame(&mut self.stream)? {
                (kind::INPUT, piece) => (self.piece, self.at) = (piece, 0),
                (kind::INPUT_END, _) => self.ended = true,
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown control frame")),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
