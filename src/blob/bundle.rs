//! Several small bodies compressed together: what a pack segment stores and what a peer is sent.
//!
//! One format for both means that a sender reads stored bytes and sends them as they are. Small mails
//! compress badly alone and well together, so an import and a first sync get the ratio of the group.
//! The layout is in `docs/store.md`.

use std::ops::Range;

use super::BlobId;

/// Bodies of this length and above stand alone, as a file or a stream; they never go into a bundle. Above
/// a mebibyte a body gains nothing from company, and reading a part of it must not inflate the rest.
pub const MAX_SMALL: usize = 1 << 20;

/// Plain bytes that several bodies of one bundle may have together: to read one body, all are inflated,
/// which takes about 0.1 ms for 128 KiB. A body above this is alone in its bundle.
pub const MAX_BUNDLE_PLAIN: usize = 128 << 10;

/// Bodies in one bundle, so that the list of ids stays below 9 KiB.
pub const MAX_BUNDLE_BODIES: usize = 256;

/// Longest encoded bundle: the largest body stored raw, and a full list of ids.
pub const MAX_BUNDLE: usize = MAX_SMALL + FIXED + MAX_BUNDLE_BODIES * (32 + MAX_VARINT);

const VERSION: u8 = 1;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const LEVEL: i32 = 3;
const FIXED: usize = 4;
const MAX_VARINT: usize = 3;

/// Why a bundle was refused. Damage on disk or a peer that misbehaves, except for the two `TooMuch` kinds,
/// which encoding gives too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes end inside the header.
    #[error("the bundle ends inside its header")]
    Truncated,
    /// A version of a later program.
    #[error("bundle version {0} is not known")]
    Version(u8),
    /// Neither raw nor zstd.
    #[error("bundle codec {0} is not known")]
    Codec(u8),
    /// No body, or more than [`MAX_BUNDLE_BODIES`].
    #[error("{0} bodies are not between 1 and {MAX_BUNDLE_BODIES}")]
    TooMany(u64),
    /// The bodies are longer than a bundle may hold.
    #[error("{0} plain bytes are more than a bundle holds")]
    TooLong(u64),
    /// The payload does not inflate to what the header declares.
    #[error("the payload is not the {0} bytes that the header declares")]
    Payload(usize),
    /// A body is not what its id says.
    #[error("the body of {0} has another hash")]
    Hash(BlobId),
    /// The bundle does not hold the body that was asked for.
    #[error("the bundle does not hold {0}")]
    Absent(BlobId),
}

/// The encoding of a few small bodies.
pub struct Bundle;

impl Bundle {
    /// Encodes 1 to [`MAX_BUNDLE_BODIES`] bodies, compressed when that saves at least 5 %.
    pub fn encode(bodies: &[(BlobId, &[u8])]) -> Result<Vec<u8>, BundleError> {
        let plain = check_limits(bodies.len() as u64, bodies.iter().map(|(_, body)| body.len() as u64))?;
        let mut joined = Vec::with_capacity(plain);
        for (_, body) in bodies {
            joined.extend_from_slice(body);
        }
        let packed = zstd::bulk::compress(&joined, LEVEL).ok().filter(|packed| saves(packed.len(), plain));
        let (codec, payload) = match &packed {
            Some(packed) => (CODEC_ZSTD, packed),
            None => (CODEC_RAW, &joined),
        };
        let mut out = Vec::with_capacity(FIXED + bodies.len() * (32 + MAX_VARINT) + payload.len());
        out.extend_from_slice(&[VERSION, codec]);
        put_varint(&mut out, bodies.len());
        for (id, body) in bodies {
            out.extend_from_slice(id.as_bytes());
            put_varint(&mut out, body.len());
        }
        out.extend_from_slice(payload);
        Ok(out)
    }

    /// The ids and plain lengths, without inflating anything.
    pub fn index(bytes: &[u8]) -> Result<Vec<(BlobId, usize)>, BundleError> {
        Ok(Header::parse(bytes)?.bodies)
    }

    /// All bodies, each checked against its id. Memory is bounded by [`MAX_SMALL`] whatever the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Vec<(BlobId, Vec<u8>)>, BundleError> {
        let opened = OpenBundle::open(bytes)?;
        let ids = opened.bodies.iter().map(|(id, _)| *id);
        ids.map(|id| Ok((id, opened.checked(id)?.to_vec()))).collect()
    }

    /// One body, checked against its id.
    pub fn extract(bytes: &[u8], id: BlobId) -> Result<Vec<u8>, BundleError> {
        OpenBundle::open(bytes)?.checked(id).map(<[u8]>::to_vec)
    }
}

/// An inflated bundle, for reading several bodies of it.
#[derive(Debug)]
pub(crate) struct OpenBundle {
    bodies: Vec<(BlobId, usize)>,
    plain: Vec<u8>,
}

impl OpenBundle {
    /// Inflates a bundle; no hash is checked yet.
    pub(crate) fn open(bytes: &[u8]) -> Result<OpenBundle, BundleError> {
        let header = Header::parse(bytes)?;
        let payload = &bytes[header.payload..];
        let plain = match header.codec {
            CODEC_RAW => payload.to_vec(),
            CODEC_ZSTD => {
                let mut plain = Vec::with_capacity(header.plain);
                zstd::bulk::Decompressor::new()
                    .and_then(|mut zstd| zstd.decompress_to_buffer(payload, &mut plain))
                    .map_err(|_| BundleError::Payload(header.plain))?;
                plain
            }
            other => return Err(BundleError::Codec(other)),
        };
        if plain.len() != header.plain {
            return Err(BundleError::Payload(header.plain));
        }
        Ok(OpenBundle { bodies: header.bodies, plain })
    }

    /// Where a body is among the [plain bytes](OpenBundle::plain), by what the bundle says; no hash is checked.
    pub(crate) fn place(&self, id: BlobId) -> Result<Range<usize>, BundleError> {
        let mut start = 0;
        for (have, length) in &self.bodies {
            if *have == id {
                return Ok(start..start + length);
            }
            start += length;
        }
        Err(BundleError::Absent(id))
    }

    /// All bodies, joined.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// One body, checked against its id.
    pub(crate) fn checked(&self, id: BlobId) -> Result<&[u8], BundleError> {
        let body = &self.plain[self.place(id)?];
        if BlobId::of(body) == id { Ok(body) } else { Err(BundleError::Hash(id)) }
    }
}

/// Collects small bodies until they fill a bundle.
#[derive(Default)]
pub struct Bundler {
    bodies: Vec<(BlobId, Vec<u8>)>,
    plain: usize,
}

impl Bundler {
    /// Starts with no bodies.
    pub fn new() -> Bundler {
        Bundler::default()
    }

    /// Whether a body of `length` bytes still goes in; if not, call [`Bundler::finish`] first.
    pub fn fits(&self, length: usize) -> bool {
        let alone = self.bodies.is_empty() && length < MAX_SMALL;
        alone
            || (self.bodies.len() < MAX_BUNDLE_BODIES
                && self.plain.saturating_add(length) <= MAX_BUNDLE_PLAIN)
    }

    /// Adds a body that fits.
    pub fn push(&mut self, id: BlobId, body: Vec<u8>) {
        debug_assert!(self.fits(body.len()), "the caller asks `fits` first");
        self.plain += body.len();
        self.bodies.push((id, body));
    }

    /// The bodies collected so far.
    pub fn ids(&self) -> impl Iterator<Item = BlobId> {
        self.bodies.iter().map(|(id, _)| *id)
    }

    /// Encodes what was collected and starts anew; nothing when nothing was.
    pub fn finish(&mut self) -> Result<Option<Vec<u8>>, BundleError> {
        if self.bodies.is_empty() {
            return Ok(None);
        }
        let bodies = std::mem::take(&mut self.bodies);
        self.plain = 0;
        let parts: Vec<(BlobId, &[u8])> = bodies.iter().map(|(id, body)| (*id, body.as_slice())).collect();
        Bundle::encode(&parts).map(Some)
    }
}

/// Whether `packed` bytes instead of `plain` are worth inflating later: at least 5 % less.
pub(crate) fn saves(packed: usize, plain: usize) -> bool {
    packed < plain - plain / 20
}

struct Header {
    codec: u8,
    bodies: Vec<(BlobId, usize)>,
    plain: usize,
    payload: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, BundleError> {
        let [version, codec, rest @ ..] = bytes else { return Err(BundleError::Truncated) };
        if *version != VERSION {
            return Err(BundleError::Version(*version));
        }
        let mut rest = rest;
        let count = take_varint(&mut rest)?;
        check_limits(count, std::iter::empty())?;
        let mut bodies = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (id, tail) = rest.split_first_chunk::<32>().ok_or(BundleError::Truncated)?;
            rest = tail;
            bodies.push((BlobId::from_bytes(*id), take_varint(&mut rest)? as usize));
        }
        let plain = check_limits(count, bodies.iter().map(|(_, length)| *length as u64))?;
        Ok(Header { codec: *codec, bodies, plain, payload: bytes.len() - rest.len() })
    }
}

/// The plain length of all bodies, if a bundle may hold them.
fn check_limits(count: u64, lengths: impl Iterator<Item = u64>) -> Result<usize, BundleError> {
    if count == 0 || count > MAX_BUNDLE_BODIES as u64 {
        return Err(BundleError::TooMany(count));
    }
    let limit = if count == 1 { MAX_SMALL - 1 } else { MAX_BUNDLE_PLAIN };
    let total = lengths.fold(0u64, u64::saturating_add);
    if total > limit as u64 {
        return Err(BundleError::TooLong(total));
    }
    Ok(total as usize)
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Little-endian groups of seven bits; three bytes reach 2 MiB, above every limit here.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, BundleError> {
    let mut value = 0;
    for shift in 0..MAX_VARINT {
        let (byte, rest) = bytes.split_first().ok_or(BundleError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BundleError::TooLong(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(bodies: &[Vec<u8>]) -> Vec<(BlobId, &[u8])> {
        bodies.iter().map(|body| (BlobId::of(body), body.as_slice())).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let text = vec![b"Subject: hello\r\n".repeat(500), b"Subject: bye\r\n".repeat(500), Vec::new()];
        let bundle = Bundle::encode(&named(&text)).unwrap();
        assert!(bundle.len() < 400, "{}", bundle.len());
        assert_eq!(bundle[1], CODEC_ZSTD);
        assert_eq!(Bundle::index(&bundle).unwrap()[1], (BlobId::of(&text[1]), text[1].len()));
        assert_eq!(Bundle::extract(&bundle, BlobId::of(&text[1])).unwrap(), text[1]);
        assert_eq!(Bundle::extract(&bundle, BlobId::of(b"x")), Err(BundleError::Absent(BlobId::of(b"x"))));

        let bundle = Bundle::encode(&named(&[noise(MAX_SMALL - 1)])).unwrap();
        assert_eq!(bundle[1], CODEC_RAW);
        assert!(bundle.len() <= MAX_BUNDLE);
        assert_eq!(Bundle::decode(&bundle).unwrap()[0].1, noise(MAX_SMALL - 1));
    }

    #[test]
    fn limits_are_checked_before_anything_is_allocated() {
        let long = vec![0; MAX_SMALL];
        assert_eq!(Bundle::encode(&named(&[long])), Err(BundleError::TooLong(1 << 20)));
        assert_eq!(Bundle::encode(&[]), Err(BundleError::TooMany(0)));
        let two = vec![vec![0; MAX_BUNDLE_PLAIN], vec![1]];
        assert_eq!(Bundle::encode(&named(&two)), Err(BundleError::TooLong(MAX_BUNDLE_PLAIN as u64 + 1)));
        assert_eq!(Bundle::encode(&vec![(BlobId::of(b""), &b""[..]); 257]), Err(BundleError::TooMany(257)));
        assert_eq!(Bundle::decode(&[1, 1, 0xff, 0xff, 0xff, 0xff]), Err(BundleError::TooLong(0x1f_ffff)));

        // A header that promises little in front of a payload that inflates to much.
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let mut bytes = vec![VERSION, CODEC_ZSTD, 1];
        bytes.extend_from_slice(&[0; 32]);
        bytes.push(10);
        bytes.extend_from_slice(&bomb);
        assert_eq!(Bundle::decode(&bytes), Err(BundleError::Payload(10)));
    }

    #[test]
    fn a_bundler_closes_at_its_limits() {
        let mut bundler = Bundler::new();
        assert_eq!(bundler.finish(), Ok(None));
        assert!(bundler.fits(MAX_SMALL - 1) && !bundler.fits(MAX_SMALL));
        bundler.push(BlobId::of(&noise(100_000)), noise(100_000));
        assert!(bundler.fits(MAX_BUNDLE_PLAIN - 100_000) && !bundler.fits(MAX_BUNDLE_PLAIN - 99_999));
        assert_eq!(bundler.ids().count(), 1);
        assert_eq!(Bundle::decode(&bundler.finish().unwrap().unwrap()).unwrap().len(), 1);
        for _ in 0..MAX_BUNDLE_BODIES {
            assert!(bundler.fits(1));
            bundler.push(BlobId::of(b"1"), b"1".to_vec());
        }
        assert!(!bundler.fits(1));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(bodies in prop::collection::vec(prop::collection::vec(0u8..4, 0..600), 1..30)) {
            let bundle = Bundle::encode(&named(&bodies)).unwrap();
            let back: Vec<Vec<u8>> = Bundle::decode(&bundle).unwrap().into_iter().map(|(_, body)| body).collect();
            prop_assert_eq!(back, bodies);
        }

        #[test]
        fn a_flipped_bit_is_an_error_and_never_a_panic(
            bodies in prop::collection::vec(prop::collection::vec(0u8..4, 1..200), 1..5),
            place in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let mut bundle = Bundle::encode(&named(&bodies)).unwrap();
            let place = place.index(bundle.len());
            bundle[place] ^= 1 << bit;
            // A flip that zstd does not see (such as an unused header bit) must leave the bodies as they were.
            if let Ok(back) = Bundle::decode(&bundle) {
                prop_assert!(back.iter().map(|(_, body)| body).eq(&bodies));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Bundle::decode(&bytes);
        }
    }
}
