//! A file that is only read, and what redb would write to it: kept in memory and forgotten.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::disk::DiskFile;

/// Bytes that are kept together: redb's page.
const PAGE: usize = 4096;

/// Costs the memory of the pages that were written: all of the index if it is built anew.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    file: Option<DiskFile>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    /// Bytes of the file that still count: it may have been cut and grown again.
    below: u64,
}

impl Overlay {
    /// Over a file as it is.
    pub(crate) fn over(path: &Path) -> Result<Overlay, StoreError> {
        let file = DiskFile::open(path)?;
        let length = file.len()?;
        let state = State { length, below: length, ..State::default() };
        Ok(Overlay { file: Some(file), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A page is replaced by one assignment, so a panic leaves none half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, state: &State, number: u64) -> io::Result<Box<[u8; PAGE]>> {
        if let Some(page) = state.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE]);
        let start = number * PAGE as u64;
        let count = state.below.saturating_sub(start).min(PAGE as u64) as usize;
        if let Some(file) = self.file.as_ref().filter(|_| count > 0) {
            file.file.read_exact_at(&mut page[..count], start)?;
        }
        Ok(page)
    }
}

/// The pages that `length` bytes from `offset` on touch: the number of each, and which of its bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let (mut at, end) = (offset, offset + length as u64);
    std::iter::from_fn(move || {
        let (number, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let to = (from as u64 + (end - at)).min(PAGE as u64) as usize;
        let piece = (at < end).then_some((number, from..to));
        at += (to - from) as u64;
        piece
    })
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset + out.len() as u64 > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (number, range) in pieces(offset, out.len()) {
            let count = range.len();
            out[done..done + count].copy_from_slice(&self.page(&state, number)?[range]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.below = state.below.min(length);
        state.length = length;
        state.pages.split_off(&length.div_ceil(PAGE as u64));
        // What is cut off must read as zeros once the file grows again.
        let rest = (length % PAGE as u64) as usize;
        if rest > 0 {
            let mut page = self.page(&state, length / PAGE as u64)?;
            page[rest..].fill(0);
            state.pages.insert(length / PAGE as u64, page);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let mut done = 0;
        for (number, range) in pieces(offset, bytes.len()) {
            let count = range.len();
            let mut page = self.page(&state, number)?;
            page[range].copy_from_slice(&bytes[done..done + count]);
            state.pages.insert(number, page);
            done += count;
        }
        state.length = state.length.max(offset + bytes.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend as _;

    use super::*;

    #[test]
    fn it_reads_like_a_file_and_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, twin) = (dir.path().join("file"), dir.path().join("twin"));
        let bytes: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(&twin, &bytes).unwrap();
        let overlay = Overlay::over(&path).unwrap();
        let model = std::fs::File::options().read(true).write(true).open(&twin).unwrap();
        let same = |what: &str| {
            let mut found = vec![0; overlay.len().unwrap() as usize];
            overlay.read(0, &mut found).unwrap();
            assert!(found == std::fs::read(&twin).unwrap(), "{what}");
        };
        for (offset, length) in [(0, 10), (4090, 12), (8192, 4096), (100, 9000), (19_990, 30), (30_000, 1)] {
            let new: Vec<u8> = (0..length).map(|n| (n * 7 + 1) as u8).collect();
            overlay.write(offset, &new).unwrap();
            model.write_all_at(&new, offset).unwrap();
            same("written");
            let (mut ours, mut theirs) = (vec![0; 5000], vec![0; 5000]);
            overlay.read(3000, &mut ours).unwrap();
            model.read_exact_at(&mut theirs, 3000).unwrap();
            assert_eq!(ours, theirs);
        }
        for length in [18_000, 4096, 25_000, 5, 12_000, 0, 9000] {
            overlay.set_len(length).unwrap();
            model.set_len(length).unwrap();
            same("cut or grown");
        }
        assert!(overlay.read(8999, &mut [0; 2]).is_err(), "there is nothing behind the end");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
