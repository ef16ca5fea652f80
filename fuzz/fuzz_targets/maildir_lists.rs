//! What other programs leave in a Maildir: Dovecot's lists, names of files and folders.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use postmerge::maildir::{FileName, KeywordTable, UidList, decode_mutf7, encode_mutf7};

fuzz_target!(|input: &[u8]| {
    if let Ok(list) = UidList::parse(input) {
        let written = list.to_bytes();
        assert_eq!(UidList::parse(&written).expect("what was written is read").to_bytes(), written);
    }
    let table = KeywordTable::parse(input).unwrap_or_default();
    let written = table.to_bytes();
    assert_eq!(KeywordTable::parse(&written).expect("what was written is read").to_bytes(), written);
    if let Ok(name) = FileName::parse(OsStr::from_bytes(input)) {
        let written = name.to_bytes();
        let again = FileName::parse(OsStr::from_bytes(&written)).expect("what was written is read");
        assert_eq!(again.to_bytes(), written);
    }
    if let Ok(name) = decode_mutf7(input) {
        assert_eq!(decode_mutf7(encode_mutf7(&name).as_bytes()).as_deref(), Ok(name.as_str()));
    }
});
