//! Lanes: which UIDs a server may claim, so that two servers never give one number to two messages.

use std::ops::Range;

use crate::mailbox::Uid;

/// The UIDs `u` with `u / block ≡ index (mod 2^bits)`. Lanes are halved by invitations and never reassigned,
/// so that the lanes of an account's servers are disjoint without anybody being asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane {
    bits: u8,
    index: u32,
}

/// How many consecutive UIDs a lane holds at a time; fixed when an account is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Block(u32);

impl Block {
    /// For accounts whose UIDs only postmerge assigns.
    pub const STANDARD: Block = Block(64);
    /// For accounts where a Dovecot assigns UIDs too: it needs room for a burst.
    pub const DOVECOT: Block = Block(4096);

    /// Only the two sizes above exist.
    pub fn new(size: u32) -> Option<Block> {
        [Block::STANDARD, Block::DOVECOT].into_iter().find(|block| block.0 == size)
    }

    /// UIDs in a block.
    pub const fn size(self) -> u32 {
        self.0
    }

    /// The places in a block that postmerge claims. Of a block for a Dovecot it leaves the upper half, so that the two, who do
    /// not ask each other, never give one number away twice.
    fn own(self) -> Range<u32> {
        0..if self == Block::DOVECOT { self.0 / 2 } else { self.0 }
    }

    /// The places that the server's Dovecot gives out; none where there must be no Dovecot.
    fn dovecots(self) -> Range<u32> {
        self.own().end..self.0
    }
}

impl Lane {
    /// Every UID: the lane of the replica that makes an account.
    pub const WHOLE: Lane = Lane { bits: 0, index: 0 };
    /// Most halvings: 4,096 servers. With the larger block a lane's next UID is then at most 2^24 ahead, which is as far
    /// as a run may leap.
    pub const MAX_BITS: u8 = 12;

    /// Nothing if `bits` is too large or `index` does not fit it.
    pub fn new(bits: u8, index: u32) -> Option<Lane> {
        (bits <= Lane::MAX_BITS && index >> bits == 0).then_some(Lane { bits, index })
    }

    /// How often the whole was halved to make this lane.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Which of the 2^bits lanes this is.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The half to keep and the half to give away; nothing once it cannot be halved any more.
    pub fn split(self) -> Option<(Lane, Lane)> {
        let keep = Lane::new(self.bits + 1, self.index)?;
        let give = Lane::new(self.bits + 1, self.index | 1 << self.bits)?;
        Some((keep, give))
    }

    /// Whether the lane owns `uid`.
    pub fn owns(self, uid: Uid, block: Block) -> bool {
        (uid.value() / block.size()) & ((1 << self.bits) - 1) == self.index
    }

    /// Whether some UID belongs to both lanes.
    pub fn overlaps(self, other: Lane) -> bool {
        let shared = self.bits.min(other.bits);
        (self.index ^ other.index) & ((1 << shared) - 1) == 0
    }

    /// The first UID above `above` that its server may claim; nothing past the last 32-bit number.
    pub fn next(self, above: u32, block: Block) -> Option<Uid> {
        self.next_in(above, block, block.own())
    }

    /// The first UID above `above` that the server's Dovecot may give out. It gives out what follows without being asked, also
    /// if the lane is halved meanwhile, so the number is one that stays with the server then.
    pub fn next_for_dovecot(self, above: u32, block: Block) -> Option<Uid> {
        let kept = self.split().map_or(self, |(kept, _)| kept);
        Some(block.dovecots())
            .filter(|part| !part.is_empty())
            .and_then(|part| kept.next_in(above, block, part))
    }

    /// The first above `above` of those in a part of the lane's blocks.
    fn next_in(self, above: u32, block: Block, part: Range<u32>) -> Option<Uid> {
        let candidate = above.checked_add(1)?;
        let (number, place) = (candidate / block.size(), candidate % block.size());
        let (number, place) = if place < part.end { (number, place) } else { (number + 1, 0) };
        let ahead = self.index.wrapping_sub(number) & ((1 << self.bits) - 1);
        let place = if ahead == 0 { place.max(part.start) } else { part.start };
        Uid::new(number.checked_add(ahead)?.checked_mul(block.size())?.checked_add(place)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_disjoint_and_make_up_the_whole() {
        let (a, rest) = Lane::WHOLE.split().unwrap();
        let (b, c) = rest.split().unwrap();
        for value in 1..5000 {
            let uid = Uid::new(value).unwrap();
            let owners = [a, b, c].into_iter().filter(|lane| lane.owns(uid, Block::STANDARD)).count();
            assert_eq!(owners, 1, "UID {value}");
        }
        assert!(!a.overlaps(b) && !b.overlaps(c) && rest.overlaps(c) && Lane::WHOLE.overlaps(a));
    }

    #[test]
    fn next_is_the_first_owned_above() {
        let (a, b) = Lane::WHOLE.split().unwrap();
        for lane in [a, b, Lane::WHOLE] {
            for above in 0..1000 {
                let naive =
                    (above + 1..).find(|u| lane.owns(Uid::new(*u).unwrap(), Block::STANDARD)).unwrap();
                assert_eq!(lane.next(above, Block::STANDARD).unwrap().value(), naive);
            }
        }
        assert_eq!(Lane::WHOLE.next(u32::MAX, Block::STANDARD), None);
        assert_eq!(b.next(u32::MAX - 1, Block::STANDARD).map(|u| u.value()), Some(u32::MAX));
    }

    #[test]
    fn a_server_and_its_dovecot_share_no_uid_and_the_lane_may_be_halved_meanwhile() {
        let block = Block::DOVECOT;
        let (a, b) = Lane::WHOLE.split().unwrap();
        for above in (0..40_000).step_by(31) {
            for (lane, other) in [(a, b), (b, a)] {
                let (own, dovecots) =
                    (lane.next(above, block).unwrap(), lane.next_for_dovecot(above, block).unwrap());
                assert!(own.value() > above && dovecots.value() > above);
                assert!(own.value() % 4096 < 2048 && dovecots.value() % 4096 >= 2048, "{own} {dovecots}");
                assert!(lane.owns(own, block) && !other.owns(dovecots, block));
                assert!(lane.split().unwrap().0.owns(dovecots, block));
                assert_eq!(lane.next_for_dovecot(dovecots.value() - 1, block), Some(dovecots));
            }
        }
        assert_eq!(Lane::WHOLE.next_for_dovecot(0, Block::STANDARD), None);
    }
}
