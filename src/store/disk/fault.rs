//! A disk that loses power at a chosen operation, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::Step;

/// Counts operations and stops at one of them. Remembers what was durable then.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Operations that still succeed.
    left: u64,
    done: u64,
    stopped: bool,
    /// The next write fails, and only that.
    full: bool,
    /// Contents at the last sync.
    synced: BTreeMap<PathBuf, Vec<u8>>,
    /// Names made since the last sync of their directory.
    created: BTreeSet<PathBuf>,
    /// Renames since the last sync of their directory: from, to, and what `to` held.
    renamed: Vec<(PathBuf, PathBuf, Option<Vec<u8>>)>,
}

impl Fault {
    /// Stops after `left` operations.
    pub(crate) fn after(left: u64) -> Fault {
        Fault { state: Mutex::new(State { left, ..State::default() }) }
    }

    /// Stops here.
    pub(crate) fn stop_now(&self) {
        self.state.lock().unwrap().left = 0;
    }

    /// Goes on: it was the process that died, not the machine.
    pub(crate) fn resume(&self) {
        self.state.lock().unwrap().left = u64::MAX;
    }

    /// The next write finds the disk full half way.
    pub(crate) fn fill(&self) {
        self.state.lock().unwrap().full = true;
    }

    /// How many operations were asked for.
    pub(crate) fn done(&self) -> u64 {
        self.state.lock().unwrap().done
    }

    pub(crate) fn step<T>(&self, step: &Step<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        state.done += 1;
        if let Step::Write { file, offset, bytes } = step
            && std::mem::take(&mut state.full)
        {
            file.file.write_all_at(&bytes[..bytes.len() / 2], *offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.left == 0 {
            // The write that power fails in reaches the disk in part.
            if let Step::Write { file, offset, bytes } = step
                && !std::mem::replace(&mut state.stopped, true)
            {
                file.file.write_all_at(&bytes[..bytes.len() / 2], *offset)?;
            }
            state.stopped = true;
            return Err(io::Error::other("power lost"));
        }
        state.left -= 1;
        let replaced = match step {
            Step::Rename(_, to) => fs::read(to).ok(),
            _ => None,
        };
        let existed = matches!(step, Step::Create(path) if path.exists());
        let done = act()?;
        state.note(step, existed, replaced);
        Ok(done)
    }

    /// Puts the disk into the worst state that the standard allows: nothing unsynced survived.
    pub(crate) fn lose_unsynced(&self) {
        let mut state = self.state.lock().unwrap();
        let renamed = std::mem::take(&mut state.renamed);
        for (from, to, old) in renamed.into_iter().rev() {
            fs::rename(&to, &from).unwrap();
            if let Some(content) = state.synced.remove(&to) {
                state.synced.insert(from, content);
            }
            if let Some(old) = old {
                fs::write(&to, &old).unwrap();
                state.synced.insert(to, old);
            }
        }
        for (path, content) in &state.synced {
            if path.exists() {
                fs::write(path, content).unwrap();
            }
        }
        for path in &state.created {
            let _ = fs::remove_file(path);
        }
    }
}

impl State {
    fn note(&mut self, step: &Step<'_>, existed: bool, replaced: Option<Vec<u8>>) {
        match step {
            Step::Create(path) if !existed => {
                self.created.insert(path.to_path_buf());
                self.synced.insert(path.to_path_buf(), Vec::new());
            }
            Step::Sync(path) => {
                self.synced.insert(path.to_path_buf(), fs::read(path).unwrap());
            }
            Step::SyncDir(dir) => {
                let inside = |path: &Path| path.parent() == Some(dir);
                self.created.retain(|path| !inside(path));
                self.renamed.retain(|(_, to, _)| !inside(to));
            }
            Step::SyncAll => {
                self.created.clear();
                self.renamed.clear();
                for (path, content) in &mut self.synced {
                    *content = fs::read(path).unwrap_or_default();
                }
            }
            Step::Rename(from, to) => {
                self.renamed.push((from.to_path_buf(), to.to_path_buf(), replaced));
                if let Some(content) = self.synced.remove(*from) {
                    self.synced.insert(to.to_path_buf(), content);
                }
            }
            Step::Remove(path) => {
                self.synced.remove(*path);
                self.created.remove(*path);
            }
            Step::Create(_) | Step::Write { .. } | Step::SetLen => {}
        }
    }
}
