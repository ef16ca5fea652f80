//! Reading bodies again to see that they are still what their names say.
//!
//! A pass goes through the pack segments, record by record as the index knows them, and then through the large bodies. It is
//! cut into steps by whoever paces it, and its place between two segments or large bodies can be kept. What the system has in
//! its cache is dropped first, or it would be memory that is read and not the disk.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::blob::{BlobId, Bundle};

use super::bodies::BodyStore;
use super::check::{Level, large_bodies, verify_large};
use super::disk::{DiskFile, numbered};
use super::pack;
use super::{Store, StoreError, large};

/// How far a pass is: all before it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubPlace {
    /// At the beginning of this segment.
    Segment(u32),
    /// Behind all segments, and behind this large body if there is one.
    Large(Option<BlobId>),
}

/// A body that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBody {
    /// Its name.
    pub blob: BlobId,
    /// Where it is.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What one step of a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Bodies that are what they should be.
    pub bodies: u64,
    /// Those that are not.
    pub damaged: Vec<DamagedBody>,
}

/// A pass over all bodies.
#[derive(Debug)]
pub struct Scrub {
    place: ScrubPlace,
    /// Records of the present segment that were not read, with the bodies that the index has there.
    records: VecDeque<(u64, Vec<BlobId>)>,
    /// The file of the present segment.
    file: Option<DiskFile>,
    large: Option<VecDeque<BlobId>>,
    done: bool,
}

impl Scrub {
    /// Begins, or goes on from a place.
    pub fn from(place: ScrubPlace) -> Scrub {
        Scrub { place, records: VecDeque::new(), file: None, large: None, done: false }
    }

    /// Where to go on after a restart.
    pub fn place(&self) -> ScrubPlace {
        self.place
    }

    /// Whether the pass is at its end.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Goes on until about `budget` bytes were read. A body that moves or goes meanwhile is not missed.
    pub fn step(&mut self, bodies: &BodyStore, budget: u64) -> Result<Scrubbed, StoreError> {
        let mut found = Scrubbed::default();
        while !self.done && found.bytes < budget {
            match self.place {
                ScrubPlace::Segment(segment) => self.read_record(bodies, segment, &mut found)?,
                ScrubPlace::Large(last) => self.read_large(bodies, last, &mut found)?,
            }
        }
        Ok(found)
    }

    fn read_record(
        &mut self,
        bodies: &BodyStore,
        segment: u32,
        found: &mut Scrubbed,
    ) -> Result<(), StoreError> {
        let Some(file) = &self.file else {
            let next = numbered(bodies.dir(), pack::EXTENSION)?.into_iter().find(|one| *one >= segment);
            self.place = next.map_or(ScrubPlace::Large(None), ScrubPlace::Segment);
            if let Some(next) = next {
                // One that was compacted in this very moment holds nothing any more.
                self.file = DiskFile::open(&pack::path(bodies.dir(), next)).ok();
                self.records = bodies.records_of(next)?.into();
                if self.file.is_none() {
                    self.place = ScrubPlace::Segment(next + 1);
                }
            }
            return Ok(());
        };
        let Some((offset, ids)) = self.records.pop_front() else {
            self.file = None;
            self.place = ScrubPlace::Segment(segment + 1);
            return Ok(());
        };
        let end = file.len()?;
        file.drop_cache(offset);
        let what = match pack::read_record(file, offset, end) {
            Ok(Ok(bundle)) => {
                found.bytes += pack::record_total(bundle.len());
                Bundle::decode(&bundle).err().map(|error| error.to_string())
            }
            Ok(Err(what)) => Some(what.to_owned()),
            Err(error) => Some(reason(&error)),
        };
        let Some(what) = what else {
            found.bodies += ids.len() as u64;
            return Ok(());
        };
        found.bytes += pack::record_total(0);
        for blob in ids {
            // It may have been moved or forgotten since.
            if bodies.is_at(blob, segment, offset)? {
                found.damaged.push(DamagedBody { blob, path: file.path.clone(), offset, what: what.clone() });
            }
        }
        Ok(())
    }

    fn read_large(
        &mut self,
        bodies: &BodyStore,
        last: Option<BlobId>,
        found: &mut Scrubbed,
    ) -> Result<(), StoreError> {
        let left = match &mut self.large {
            Some(left) => left,
            none => {
                let mut all = large_bodies(bodies.dir())?;
                all.retain(|id| last.is_none_or(|last| *id > last));
                none.insert(all.into())
            }
        };
        let Some(blob) = left.pop_front() else {
            self.done = true;
            return Ok(());
        };
        self.place = ScrubPlace::Large(Some(blob));
        let path = large::path(bodies.dir(), blob);
        if let Ok(file) = DiskFile::open(&path) {
            found.bytes += file.len()?;
            file.drop_cache(0);
        }
        match verify_large(bodies.dir(), blob, Level::Full) {
            Ok(None) => found.bodies += 1,
            Ok(Some((offset, what))) => found.damaged.push(DamagedBody { blob, path, offset, what }),
            Err(error) => found.damaged.push(DamagedBody { blob, path, offset: 0, what: reason(&error) }),
        }
        Ok(())
    }
}

/// What the system said of a file that cannot be read.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { what, .. } => what.clone(),
        StoreError::Io { source, .. } => format!("it cannot be read: {source}"),
        other => other.to_string(),
    }
}

impl Store {
    /// Takes damaged bodies out: from now on they are not here. Their bytes stay where they are, a large body's beside it.
    pub(crate) fn drop_damaged(&mut self, damaged: &[DamagedBody]) -> Result<(), StoreError> {
        for body in damaged {
            if body.path == large::path(self.bodies.dir(), body.blob) {
                let kept = body.path.with_extension("damaged");
                self.disk.rename(&body.path, &kept)?;
            }
        }
        let ids: Vec<BlobId> = damaged.iter().map(|body| body.blob).collect();
        self.drop_rows(&ids)
    }
}

/// The records of a segment by their offsets, from where the index has bodies.
pub(super) fn by_offset(rows: impl IntoIterator<Item = (u64, BlobId)>) -> Vec<(u64, Vec<BlobId>)> {
    let mut records: BTreeMap<u64, Vec<BlobId>> = BTreeMap::new();
    for (offset, id) in rows {
        records.entry(offset).or_default().push(id);
    }
    records.into_iter().collect()
}

impl fmt::Display for ScrubPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScrubPlace::Segment(segment) => write!(f, "segment:{segment}"),
            ScrubPlace::Large(None) => f.write_str("large"),
            ScrubPlace::Large(Some(blob)) => write!(f, "large:{blob}"),
        }
    }
}

/// The text is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in a scrub")]
pub struct NoPlace;

impl FromStr for ScrubPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<ScrubPlace, NoPlace> {
        match text.split_once(':') {
            None if text == "large" => Ok(ScrubPlace::Large(None)),
            Some(("segment", number)) => number.parse().map(ScrubPlace::Segment).map_err(|_| NoPlace),
            Some(("large", blob)) => {
                blob.parse().map(|blob| ScrubPlace::Large(Some(blob))).map_err(|_| NoPlace)
            }
            _ => Err(NoPlace),
        }
    }
}
