//! What a member of the account sends: a change, and the packs and UID records in it.

#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use postmerge::mailbox::{Change, Pack, UidRecord};

fuzz_target!(|input: &[u8]| {
    // Automerge may panic while it reads a change, which `vet` makes an error of; libFuzzer's hook would end the run. A panic
    // that leaves this function ends it all the same.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Ok(change) = Change::vet(input) {
        assert_eq!(change.bytes(), input);
    }
    // Under the checksum hardly any mutation would be looked at.
    let _ = Change::vet(&sealed(input));
    if let Ok(pack) = Pack::decode(input) {
        assert_eq!(pack.encode(), input, "there is one encoding");
    }
    if let Ok(record) = UidRecord::decode(input) {
        assert_eq!(record.encode(), input, "there is one encoding");
    }
});

/// The bytes as a change chunk with the checksum that fits.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![1];
    let mut len = body.len();
    while len > 0x7f {
        chunk.push(len as u8 | 0x80);
        len >>= 7;
    }
    chunk.push(len as u8);
    chunk.extend(body);
    let sum = sha256(&chunk);
    [&[0x85, 0x6f, 0x4a, 0x83][..], &sum[..4], &chunk].concat()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
