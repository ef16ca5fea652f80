//! A file that somebody imports as mbox, in both dialects.

#![no_main]

use std::io::{BufReader, Read};

use libfuzzer_sys::fuzz_target;
use postmerge::maildir::{Mbox, MboxDialect};

fn messages(input: &[u8], buffer: usize, dialect: MboxDialect) -> Option<Vec<Vec<u8>>> {
    let mut mbox = Mbox::new(BufReader::with_capacity(buffer, input), dialect);
    let mut all = Vec::new();
    loop {
        let mut message = mbox.next_message().ok()?;
        let Some(message) = &mut message else { return Some(all) };
        let mut text = Vec::new();
        message.read_to_end(&mut text).ok()?;
        all.push(text);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((buffer, input)) = input.split_first() else { return };
    for dialect in [MboxDialect::Rd, MboxDialect::O] {
        let whole = messages(input, input.len().max(1), dialect);
        assert_eq!(messages(input, usize::from(*buffer) + 1, dialect), whole, "pieces do not matter");
        if let Some(all) = whole {
            assert!(all.iter().map(Vec::len).sum::<usize>() <= input.len() + 2 * all.len());
        }
    }
});
