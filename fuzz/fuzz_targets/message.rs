//! What a stranger mails: the summary of a body, its sections, and what SEARCH, SORT and THREAD make of it. Also a summary
//! that the index gave back damaged.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use postmerge_imap::grammar::{SortCriterion, SortKey};
use postmerge_imap::message::{
    Maker, Partial, Section, SectionText, Sorter, Summary, Target, Terms, ThreadRow, base_subject,
    by_references, by_subject, filter_fields, make,
};

const PARTS: &[&[u32]] = &[&[], &[1], &[2], &[1, 1], &[1, 2], &[2, 1], &[1, 1, 1]];
const KEYS: &[SortKey] = &[
    SortKey::Cc,
    SortKey::Date,
    SortKey::DisplayFrom,
    SortKey::DisplayTo,
    SortKey::From,
    SortKey::Size,
    SortKey::Subject,
    SortKey::To,
];

fn at<'a>(raw: &'a [u8]) -> impl Fn(u64) -> std::io::Result<&'a [u8]> {
    move |offset| Ok(raw.get(offset as usize..).unwrap_or_default())
}

fn sections(summary: &Summary<'_>, raw: &[u8], partial: Partial) {
    let names = vec![b"Subject".to_vec(), b"x".to_vec()];
    let texts = [
        SectionText::All,
        SectionText::Header,
        SectionText::Text,
        SectionText::Mime,
        SectionText::Fields { names: names.clone(), not: false },
    ];
    for part in PARTS {
        for text in &texts {
            let section = Section { part: part.to_vec(), text: text.clone() };
            let Some(span) = summary.section(&section) else { continue };
            let (mut all, mut piece) = (Vec::new(), Vec::new());
            summary.open(span, None, at(raw)).unwrap().read_to_end(&mut all).unwrap();
            summary.open(span, Some(partial), at(raw)).unwrap().read_to_end(&mut piece).unwrap();
            assert_eq!(partial.cut(all.clone()), piece);
            filter_fields(&all, &names, true);
        }
        if let Ok(Some(mut text)) = summary.decoded(part, at(raw)) {
            let mut decoded = Vec::new();
            let _ = text.read_to_end(&mut decoded);
        }
    }
}

/// Uses a summary in all ways; gives what a client may be told of it.
fn read(summary: &Summary<'_>, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    summary.put_envelope(&mut out);
    summary.put_body(&mut out);
    summary.put_body_structure(&mut out);
    summary.header_fields(&[b"subject"]);
    base_subject(summary.preview());
    let mut terms = Terms::new();
    terms.add(Target::Header(b"subject".to_vec()), "a");
    terms.add(Target::Body, "b\u{e9}");
    terms.add(Target::Text, "c d");
    let mut found = terms.in_summary(summary);
    let _ = terms.in_body(summary, &mut found, at(raw));
    let by: Vec<SortCriterion> = KEYS.iter().map(|key| SortCriterion { key: *key, reverse: false }).collect();
    let mut sorter = Sorter::new(&by);
    sorter.add(summary, 0);
    sorter.add(summary, 1);
    sorter.order();
    let rows = [ThreadRow::new(1, 0, summary), ThreadRow::new(2, 1, summary)];
    by_references(&rows).put(&mut out);
    by_subject(&rows).put(&mut out);
    out
}

fuzz_target!(|input: &[u8]| {
    let Some(([how, offset, count], raw)) = input.split_first_chunk() else { return };
    let partial = Partial { offset: (*offset).into(), count: (*count).into() };
    if how & 1 == 1 {
        // The index damaged it: garbage is told, and no more is wanted than that nothing breaks.
        if let Ok(summary) = Summary::read(raw) {
            read(&summary, b"");
        }
        return;
    }
    let made = make(&mut &raw[..]).unwrap();
    let mut maker = Maker::new();
    raw.chunks(usize::from(how >> 1) + 1).for_each(|piece| maker.push(piece));
    assert_eq!(maker.finish(), made, "pieces do not matter");
    let summary = Summary::read(&made).expect("what was just made");
    assert!(!read(&summary, raw).contains(&0), "no NUL goes to a client");
    sections(&summary, raw, partial);
});
