//! SIGTERM and Ctrl-C end the daemon, a second one at once; SIGHUP has it read its configuration again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Code;

/// Which signal ended the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// SIGTERM.
    Terminated,
    /// Ctrl-C.
    Interrupted,
}

/// The signals that the daemon listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on. To be called inside the runtime.
    pub(crate) fn new() -> std::io::Result<Signals> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Signals { terminate, interrupt, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for the end; reloads whenever that is asked for.
    pub(crate) async fn wait(&mut self, mut reload: impl FnMut()) -> Ending {
        loop {
            tokio::select! {
                ending = ending(&mut self.terminate, &mut self.interrupt) => return ending,
                _ = self.hangup.recv() => tokio::task::block_in_place(&mut reload),
            }
        }
    }

    /// From now on whoever asks for the end once more gets it at once. What was confirmed is safe, as after a crash.
    pub(crate) fn force(mut self) {
        tokio::spawn(async move {
            let code = match ending(&mut self.terminate, &mut self.interrupt).await {
                Ending::Interrupted => Code::INTERRUPTED,
                Ending::Terminated => Code::FAILED,
            };
            eprintln!("stopped before everything had come to its end");
            std::process::exit(code.value().into());
        });
    }
}

async fn ending(terminate: &mut Signal, interrupt: &mut Signal) -> Ending {
    tokio::select! {
        _ = terminate.recv() => Ending::Terminated,
        _ = interrupt.recv() => Ending::Interrupted,
    }
}
