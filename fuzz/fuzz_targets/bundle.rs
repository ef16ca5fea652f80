//! Bodies as a peer sends them, and as they stand on the disk.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postmerge::blob::{BlobId, Bundle, MAX_BUNDLE_PLAIN};

fuzz_target!(|input: &[u8]| {
    let Ok(bodies) = Bundle::decode(input) else { return };
    assert!(bodies.iter().map(|(_, body)| body.len()).sum::<usize>() <= MAX_BUNDLE_PLAIN);
    let index = Bundle::index(input).expect("it was decoded");
    let described: Vec<(BlobId, usize)> = bodies.iter().map(|(id, body)| (*id, body.len())).collect();
    assert_eq!(index, described);
    for (id, body) in &bodies {
        assert_eq!(BlobId::of(body), *id, "a body is what its name says");
    }
});
