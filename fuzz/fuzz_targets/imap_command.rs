//! What a mail client sends. However the bytes are cut, they are the same commands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postmerge_imap::grammar::{AppendItem, CommandBody, Item, Limits, NameEncoding, Reader};

/// Small, so that the fuzzer reaches them.
const LIMITS: Limits = Limits { line: 2048, literals: 512, swallow: 4096 };

/// All items of a session that is received in pieces; texts of messages are put together.
fn read(octets: &[u8], piece: usize, names: NameEncoding, refuses: bool) -> Vec<Item> {
    let (mut reader, mut items) = (Reader::new(LIMITS), Vec::new());
    reader.set_names(names);
    for part in octets.chunks(piece) {
        reader.push(part);
        while let Some(item) = reader.poll() {
            match &item {
                Item::Append(AppendItem::Text(_)) if refuses => reader.refuse(),
                Item::Append(AppendItem::Text(_)) => reader.accept(),
                Item::Command(command) if matches!(command.body, CommandBody::Idle) => reader.expect_line(),
                _ => {}
            }
            match (items.last_mut(), item) {
                (Some(Item::Append(AppendItem::Chunk(text))), Item::Append(AppendItem::Chunk(more))) => {
                    text.extend(more);
                }
                (_, item) => items.push(item),
            }
        }
    }
    items
}

fuzz_target!(|input: &[u8]| {
    let Some((how, octets)) = input.split_first() else { return };
    let names = if how & 1 == 0 { NameEncoding::ModifiedUtf7 } else { NameEncoding::Utf8 };
    let refuses = how & 2 != 0;
    let piece = usize::from(how >> 2) + 1;
    let whole = read(octets, octets.len().max(1), names, refuses);
    assert_eq!(read(octets, piece, names, refuses), whole, "in pieces of {piece}");
});
