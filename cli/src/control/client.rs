//! The client's side: sends the command, prints what comes back.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail};

use super::{PIECE, PROTOCOL, Sender, kind, read_frame};
use crate::context::Code;
use crate::paths::Setup;
use crate::progress::{self, Step};

/// Whether a daemon listens for the store.
pub(crate) fn answers(setup: &Setup) -> bool {
    setup.sockets_to_try().iter().any(|path| UnixStream::connect(path).is_ok())
}

/// Has the daemon run this process's command. Nothing if no daemon answers for the store.
pub(crate) fn call(setup: &Setup) -> anyhow::Result<Option<Code>> {
    let Some(mut stream) = connect(setup)? else { return Ok(None) };
    let sender = Sender::new(stream.try_clone()?);
    let mut request = [PROTOCOL, setup.cwd.as_os_str().as_bytes()].join(&0);
    for argument in std::env::args_os() {
        request.push(0);
        request.extend(argument.as_bytes());
    }
    sender.send(kind::REQUEST, &request)?;
    let mut bars = progress::on_terminal();
    let mut started = false;
    loop {
        let (kind, body) = match read_frame(&mut stream) {
            Ok(frame) => frame,
            // The daemon was about to stop and never looked at the request.
            Err(_) if !started => return Ok(None),
            Err(error) => return Err(error).context("the serving process stopped while the command ran"),
        };
        started = true;
        match kind {
            kind::OUT => {
                bars(Step::End);
                io::stdout().write_all(&body)?;
                io::stdout().flush()?;
            }
            kind::ERR => {
                // What a command says, it says after its progress, or has failed in the middle of it.
                bars(Step::End);
                io::stderr().write_all(&body)?;
            }
            kind::PROGRESS => bars(serde_json::from_slice(&body)?),
            kind::WANT_INPUT => pump(sender.clone()),
            kind::EXIT => {
                bars(Step::End);
                return Ok(Some(body.first().map_or(Code::FAILED, |code| Code::from_value(*code))));
            }
            _ => bail!("another version of postmerge serves the store"),
        }
    }
}

fn connect(setup: &Setup) -> anyhow::Result<Option<UnixStream>> {
    for path in setup.sockets_to_try() {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot reach {}", path.display())),
        }
    }
    Ok(None)
}

/// Sends standard input in a thread of its own; it ends with the process.
fn pump(sender: Sender) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match io::stdin().read(&mut buffer) {
                Ok(0) => return sender.send(kind::INPUT_END, &[]),
                Ok(count) => sender.send(kind::INPUT, &buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    });
}
