//! A disk that loses power at a chosen operation, for tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{DiskFile, Step};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Fault>>> = const { RefCell::new(None) };
}

/// The disk on which this thread opens stores from now on.
pub(crate) fn set_current(fault: Option<Arc<Fault>>) {
    CURRENT.set(fault);
}

pub(super) fn current() -> Option<Arc<Fault>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Counts operations and stops at one of them. Remembers what was not durable then.
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
    /// What was written since the last sync of each file, in order.
    unsynced: BTreeMap<PathBuf, Vec<Edit>>,
    /// Names made since the last sync of their directory.
    created: BTreeSet<PathBuf>,
    /// Renames since the last sync of their directory: from, to, and what `to` held.
    renamed: Vec<(PathBuf, PathBuf, Option<Vec<u8>>)>,
}

/// A write that is not durable: how long the file was, the bytes that were there, and those that are.
#[derive(Debug)]
struct Edit {
    length: u64,
    offset: u64,
    old: Vec<u8>,
    /// Nothing where the file was cut off.
    new: Option<Vec<u8>>,
}

/// What becomes of a write that was not durable when power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Kept,
    /// Its first half is there.
    Torn,
}

impl Fault {
    /// Stops after `left` operations.
    pub(crate) fn after(left: u64) -> Fault {
        Fault { state: Mutex::new(State { left, ..State::default() }) }
    }

    /// Stops here.
    pub(crate) fn stop_now(&self) {
        self.stop_after(0);
    }

    /// Stops after `left` operations from now on.
    pub(crate) fn stop_after(&self, left: u64) {
        self.state.lock().unwrap().left = left;
    }

    /// Whether an operation was refused.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().unwrap().stopped
    }

    /// Goes on: it was the process that died, not the machine.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock().unwrap();
        (state.left, state.stopped, state.full) = (u64::MAX, false, false);
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
            state.write_half(file, *offset, bytes)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.left == 0 {
            // The write that power fails in reaches the disk in part.
            if let Step::Write { file, offset, bytes } = step
                && !std::mem::replace(&mut state.stopped, true)
            {
                state.write_half(file, *offset, bytes)?;
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
        state.remember(step, existed)?;
        let done = act()?;
        state.note(step, existed, replaced);
        Ok(done)
    }

    /// Puts the disk into the worst state that the standard allows: nothing unsynced survived.
    pub(crate) fn lose_unsynced(&self) {
        self.lose(&mut || Fate::Lost);
    }

    /// Puts the disk into a state that the standard allows: of what was not synced, `fate` decides. Names come in order, as
    /// from a journal; bytes in any.
    pub(crate) fn lose(&self, fate: &mut dyn FnMut() -> Fate) {
        let mut state = self.state.lock().unwrap();
        let mut renamed = std::mem::take(&mut state.renamed);
        let kept = (0..renamed.len()).take_while(|_| fate() != Fate::Lost).count();
        for (from, to, old) in renamed.drain(kept..).rev() {
            fs::rename(&to, &from).unwrap();
            if let Some(edits) = state.unsynced.remove(&to) {
                state.unsynced.insert(from, edits);
            }
            if let Some(old) = old {
                fs::write(&to, &old).unwrap();
            }
        }
        for (path, edits) in std::mem::take(&mut state.unsynced) {
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            for edit in edits.iter().rev() {
                file.write_all_at(&edit.old, edit.offset).unwrap();
                file.set_len(edit.length).unwrap();
            }
            for edit in &edits {
                match (fate(), &edit.new) {
                    (Fate::Lost, _) => {}
                    (Fate::Kept, Some(new)) => file.write_all_at(new, edit.offset).unwrap(),
                    (Fate::Torn, Some(new)) => {
                        file.write_all_at(&new[..new.len() / 2], edit.offset).unwrap();
                    }
                    (_, None) => file.set_len(edit.offset).unwrap(),
                }
            }
        }
        for path in std::mem::take(&mut state.created) {
            if fate() == Fate::Lost {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl State {
    fn write_half(&mut self, file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = &bytes[..bytes.len() / 2];
        self.remember(&Step::Write { file, offset, bytes }, true)?;
        file.file.write_all_at(bytes, offset)
    }

    /// Keeps what an operation is about to overwrite.
    fn remember(&mut self, step: &Step<'_>, existed: bool) -> io::Result<()> {
        let read = |file: &DiskFile, from: u64, to: u64| {
            let length = file.file.metadata()?.len();
            let mut old = vec![0; to.min(length).saturating_sub(from) as usize];
            file.file.read_exact_at(&mut old, from)?;
            Ok::<_, io::Error>((length, old))
        };
        let (path, edit) = match step {
            Step::Write { file, offset, bytes } => {
                let (length, old) = read(file, *offset, offset + bytes.len() as u64)?;
                (file.path.as_path(), Edit { length, offset: *offset, old, new: Some(bytes.to_vec()) })
            }
            Step::SetLen(file, to) => {
                let (length, old) = read(file, *to, u64::MAX)?;
                (file.path.as_path(), Edit { length, offset: *to, old, new: None })
            }
            Step::Create(path) if existed => {
                let old = fs::read(path)?;
                (*path, Edit { length: old.len() as u64, offset: 0, old, new: None })
            }
            _ => return Ok(()),
        };
        match self.unsynced.get_mut(path) {
            Some(edits) => edits.push(edit),
            None => _ = self.unsynced.insert(path.to_path_buf(), vec![edit]),
        }
        Ok(())
    }

    fn note(&mut self, step: &Step<'_>, existed: bool, replaced: Option<Vec<u8>>) {
        match step {
            Step::Create(path) if !existed => _ = self.created.insert(path.to_path_buf()),
            Step::Sync(path) => _ = self.unsynced.remove(*path),
            Step::SyncDir(dir) => {
                let inside = |path: &Path| path.parent() == Some(dir);
                self.created.retain(|path| !inside(path));
                self.renamed.retain(|(_, to, _)| !inside(to));
            }
            Step::SyncAll => {
                self.created.clear();
                self.renamed.clear();
                self.unsynced.clear();
            }
            Step::Rename(from, to) => {
                self.renamed.push((from.to_path_buf(), to.to_path_buf(), replaced));
                self.unsynced.remove(*to);
                if let Some(edits) = self.unsynced.remove(*from) {
                    self.unsynced.insert(to.to_path_buf(), edits);
                }
            }
            Step::Remove(path) => {
                self.unsynced.remove(*path);
                self.created.remove(*path);
            }
            Step::Create(_) | Step::Write { .. } | Step::SetLen(..) | Step::Replace => {}
        }
    }
}
