//! Reads many keys of one map in one walk over them and what lies between: a tenth of the cost of single looks.

use automerge::iter::{MapRange, MapRangeItem};
use automerge::{Automerge, ObjId, ReadDoc};

/// To set up a walk costs as much as so many single looks.
const FEW: usize = 4;

/// A step costs so much less than a look. Where keys lie further apart, the walk is given up.
const STEPS: usize = 8;

/// A walk over some keys of one map.
pub(super) struct Neighbours<'a> {
    /// Nothing where a walk does not pay.
    range: Option<MapRange<'a>>,
    next: Option<MapRangeItem<'a>>,
    steps: usize,
}

/// What a walk says of a key.
pub(super) enum Found<'a> {
    /// The map does not have it.
    Nothing,
    /// It has one value.
    One(MapRangeItem<'a>),
    /// It must be looked up by itself: it has concurrent values, or the walk did not get there.
    Ask,
}

impl<'a> Neighbours<'a> {
    /// Sets out for `keys` of a map, which ascend.
    pub(super) fn of(doc: &'a Automerge, map: &ObjId, keys: &[&str]) -> Neighbours<'a> {
        let ends = keys.first().zip(keys.last()).filter(|_| keys.len() > FEW);
        let range = ends.map(|(first, last)| doc.map_range(map, (*first).to_owned()..=(*last).to_owned()));
        let mut walk = Neighbours { range, next: None, steps: STEPS * keys.len() };
        walk.step();
        walk
    }

    /// What the next one of the keys has.
    pub(super) fn at(&mut self, key: &str) -> Found<'a> {
        while self.next.as_ref().is_some_and(|item| item.key.as_ref() < key) {
            self.step();
        }
        match self.next.take_if(|item| item.key == key) {
            Some(item) => {
                self.step();
                if item.conflict { Found::Ask } else { Found::One(item) }
            }
            None if self.next.is_some() || self.is_over() => Found::Nothing,
            None => Found::Ask,
        }
    }

    /// Whether it came to its end, rather than being given up.
    fn is_over(&self) -> bool {
        self.range.is_some() && self.steps > 0
    }

    fn step(&mut self) {
        self.next = self.range.as_mut().filter(|_| self.steps > 0).and_then(Iterator::next);
        self.steps -= usize::from(self.next.is_some());
    }
}
