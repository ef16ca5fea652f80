//! Keeps one Maildir in step while the daemon runs. What the file system tells is a hint that something happened; what
//! happened, a run finds out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use postmerge::maildir::{Attachment, BridgeError, How, Maildirs, Report};
use postmerge::replica::{Replica, Subscription};

/// A burst of hints, as a rename makes two or a delivery three, leads to one run.
const QUIET: Duration = Duration::from_millis(10);
/// A run is not put off for longer than this while hints go on.
const LONGEST: Duration = Duration::from_millis(100);
/// Without a hint folders are looked at this often: a look at one that stood still is three calls of the system.
const RESCAN: Duration = Duration::from_secs(60);
/// The same where the system cannot watch.
const POLL: Duration = Duration::from_secs(5);
/// After a folder that did not stand still.
const SOON: Duration = Duration::from_millis(250);
/// Between tries after an error, doubled each time up to [`RESCAN`].
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// How a watched Maildir is.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Whether the file system tells of changes; else it is looked at every few seconds.
    pub(crate) watched: bool,
    /// When both sides were last in step, in seconds since 1970.
    pub(crate) in_step: Option<u64>,
    /// Why the last run failed.
    pub(crate) error: Option<String>,
    /// What the last run left alone.
    pub(crate) skipped: u64,
    /// Messages whose files wait for their bodies.
    pub(crate) waiting: u64,
}

/// A thread that keeps a Maildir in step; it ends when this is dropped.
pub(crate) struct Watch {
    state: Arc<Mutex<State>>,
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
    _subscription: Subscription,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Hint,
    Stop,
}

impl Watch {
    pub(crate) fn start(
        replica: &Replica,
        maildirs: &Arc<Maildirs>,
        attachment: &Attachment,
        how: How,
    ) -> Watch {
        // One hint that waits says as much as a hundred; one place more for the word to stop.
        let (wake, wakes) = sync_channel(2);
        let state = Arc::new(Mutex::new(State::default()));
        let hint = hinter(&wake);
        let subscription = replica.subscribe({
            let hint = hint.clone();
            move |_| hint()
        });
        let mut keeper = Keeper {
            maildirs: Arc::clone(maildirs),
            attachment: attachment.clone(),
            how,
            state: Arc::clone(&state),
            watcher: notify::recommended_watcher(move |event| {
                if !only_reads(&event) {
                    hint();
                }
            })
            .ok(),
            watched: BTreeSet::new(),
            failed: 0,
        };
        let thread = std::thread::spawn(move || keeper.keep(&wakes));
        Watch { state, wake, thread: Some(thread), _subscription: subscription }
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread takes hints out at all times, so this does not wait for long.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn hinter(wake: &SyncSender<Wake>) -> impl Fn() + Clone + Send + Sync + 'static {
    let wake = wake.clone();
    move || match wake.try_send(Wake::Hint) {
        Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
    }
}

/// Whether somebody only read. A run does so itself: taken for a hint, that would lead to the next run, without end.
fn only_reads(event: &notify::Result<notify::Event>) -> bool {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event.as_ref().is_ok_and(|event| event.kind.is_access() && event.kind != written && !event.need_rescan())
}

struct Keeper {
    maildirs: Arc<Maildirs>,
    attachment: Attachment,
    how: How,
    state: Arc<Mutex<State>>,
    /// Nothing where the system cannot watch.
    watcher: Option<RecommendedWatcher>,
    /// By their numbers in the file system too: a directory that was made again needs to be watched again.
    watched: BTreeSet<(PathBuf, u64)>,
    /// Runs that failed one after the other.
    failed: u32,
}

impl Keeper {
    fn keep(&mut self, wakes: &Receiver<Wake>) {
        loop {
            // Before the run: what happens during it must be told.
            let watched = self.watch();
            let result = self.maildirs.run(self.attachment.id, self.how, &SystemTime::now, &mut |_| {});
            let next = self.note(&result, watched);
            match wakes.recv_timeout(next) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => continue,
                Ok(Wake::Hint) => {}
            }
            if self.failed > 0 && !self.pause(wakes, AFTER_ERROR) || !self.settle(wakes) {
                return;
            }
        }
    }

    /// Waits until hints stop coming, for a while; false at the end.
    fn settle(&self, wakes: &Receiver<Wake>) -> bool {
        let start = Instant::now();
        while start.elapsed() < LONGEST {
            match wakes.recv_timeout(QUIET) {
                Ok(Wake::Hint) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
        true
    }

    /// Lets time pass, whatever is hinted; false at the end.
    fn pause(&self, wakes: &Receiver<Wake>, time: Duration) -> bool {
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            match wakes.recv_timeout(left) {
                Ok(Wake::Hint) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
        true
    }

    /// Has every directory of the Maildir watched; whether that is so.
    fn watch(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let Ok(wanted) = self.maildirs.directories(&self.attachment) else { return false };
        for gone in self.watched.difference(&wanted).cloned().collect::<Vec<_>>() {
            let _ = watcher.unwatch(&gone.0);
            self.watched.remove(&gone);
        }
        let mut all = true;
        for (path, inode) in wanted.difference(&self.watched).cloned().collect::<Vec<_>>() {
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert((path, inode))),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "cannot watch");
                    all = false;
                }
            }
        }
        all
    }

    /// Keeps what became of a run; gives the time until the next one, if nothing is told before.
    fn note(&mut self, result: &Result<Report, BridgeError>, watched: bool) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let root = self.attachment.root.display();
        state.watched = watched;
        match result {
            Ok(report) => {
                if !report.brake.is_off() && state.error.is_none() {
                    tracing::error!(maildir = %root, brake = ?report.brake, "stopped: too many removals");
                }
                if state.error.take().is_some() {
                    tracing::info!(maildir = %root, "goes on");
                }
                (state.skipped, state.waiting) = (report.skipped.len() as u64, report.waiting);
                self.failed = 0;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                state.in_step = now.ok().map(|now| now.as_secs());
                match (report.busy.is_empty(), watched) {
                    (false, _) => SOON,
                    (true, true) => RESCAN,
                    (true, false) => POLL,
                }
            }
            Err(error) => {
                let error = crate::failure::chain(error);
                if state.error.as_ref() != Some(&error) {
                    tracing::error!(maildir = %root, error, "cannot be kept in step; trying again");
                }
                state.error = Some(error);
                self.failed += 1;
                AFTER_ERROR.saturating_mul(1 << self.failed.min(6)).min(RESCAN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind, RenameMode};
    use notify::{Error, Event};

    use super::*;

    #[test]
    fn what_a_run_does_itself_is_no_hint() {
        let of = |kind| Ok(Event::new(kind));
        let reads =
            [AccessKind::Open(AccessMode::Any), AccessKind::Read, AccessKind::Close(AccessMode::Read)];
        assert!(reads.into_iter().all(|read| only_reads(&of(EventKind::Access(read)))));
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            EventKind::Other,
        ] {
            assert!(!only_reads(&of(kind)), "{kind:?}");
        }
        // What the system had no room for may have been anything.
        let lost = Event::new(EventKind::Access(AccessKind::Read)).set_flag(Flag::Rescan);
        assert!(!only_reads(&Ok(lost)) && !only_reads(&Err(Error::generic("lost"))));
    }
}
