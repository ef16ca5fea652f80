//! A look at a change's columns before Automerge decodes them.
//!
//! Columns are run-length encoded, so that a few bytes can stand for 2^60 operations, and Automerge walks all of them when it
//! reads a change. Here only the lengths of the runs are added up; the layout is Automerge's binary format, version 1.

use super::change::Change;

/// Most values of a column: every operation may replace a few concurrent ones.
const MAX_VALUES: u64 = 4 * Change::MAX_OPS as u64;

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(head)
    }

    /// An unsigned LEB128 number.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A signed LEB128 number.
    fn signed(&mut self) -> Option<i64> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Some(value << unused >> unused);
            }
        }
        None
    }

    fn skip_prefixed(&mut self) -> Option<()> {
        let len = self.unsigned()?;
        self.take(len).map(drop)
    }
}

/// Whether a change chunk has columns that stand for a bounded number of values, none of them deflated.
pub(super) fn is_bounded(chunk: &[u8]) -> bool {
    columns(chunk).is_some_and(|columns| columns.iter().all(|(spec, data)| column_is_bounded(*spec, data)))
}

fn columns(chunk: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    // Magic, checksum and kind; then the length of the rest.
    let mut cursor = Cursor(chunk.get(9..)?);
    let len = cursor.unsigned()?;
    if len != cursor.0.len() as u64 {
        return None;
    }
    let deps = cursor.unsigned()?;
    cursor.take(deps.checked_mul(32)?)?;
    cursor.skip_prefixed()?;
    cursor.unsigned()?;
    cursor.unsigned()?;
    cursor.signed()?;
    cursor.skip_prefixed()?;
    for _ in 0..cursor.unsigned()? {
        cursor.skip_prefixed()?;
    }
    let mut lengths = Vec::new();
    for _ in 0..cursor.unsigned()? {
        lengths.push((cursor.unsigned()?, cursor.unsigned()?));
    }
    lengths.into_iter().map(|(spec, len)| Some((spec, cursor.take(len)?))).collect()
}

fn column_is_bounded(spec: u64, data: &[u8]) -> bool {
    const DEFLATED: u64 = 8;
    let count = match spec & 7 {
        _ if spec & DEFLATED != 0 => None,
        4 => booleans(data),
        // Raw bytes of values: as many as there are.
        7 => Some(0),
        kind => runs(data, kind),
    };
    count.is_some_and(|count| count <= MAX_VALUES)
}

fn booleans(data: &[u8]) -> Option<u64> {
    let (mut cursor, mut count) = (Cursor(data), 0u64);
    while !cursor.0.is_empty() {
        count = count.checked_add(cursor.unsigned()?)?;
    }
    Some(count)
}

fn runs(data: &[u8], kind: u64) -> Option<u64> {
    let (mut cursor, mut count) = (Cursor(data), 0u64);
    let value = |cursor: &mut Cursor<'_>| match kind {
        3 => cursor.signed().map(drop),
        5 => cursor.skip_prefixed(),
        _ => cursor.unsigned().map(drop),
    };
    while !cursor.0.is_empty() {
        let len = cursor.signed()?;
        let values = match len {
            0 => cursor.unsigned()?,
            1.. => {
                value(&mut cursor)?;
                len.unsigned_abs()
            }
            _ => {
                for _ in 0..len.unsigned_abs() {
                    value(&mut cursor)?;
                }
                len.unsigned_abs()
            }
        };
        count = count.checked_add(values)?;
    }
    Some(count)
}
