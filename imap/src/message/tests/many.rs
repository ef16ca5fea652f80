//! Order and conversations of many messages.

use proptest::prelude::*;

use super::*;
use crate::grammar::SortCriterion;

fn row(number: u32, date: i64, subject: &str, id: &str, references: &[&str]) -> ThreadRow {
    let (base, is_reply) = base_subject(subject);
    ThreadRow {
        number,
        date,
        subject: (!base.is_empty()).then(|| label(&base)),
        is_reply,
        id: (!id.is_empty()).then(|| label(id)),
        references: references.iter().map(|id| label(id)).collect(),
    }
}

fn label(text: &str) -> Label {
    Label::new(text.as_bytes())
}

fn written(forest: &Forest) -> String {
    let mut out = Vec::new();
    forest.put(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_threads_of_rfc_5256() {
    let rows = [
        row(2, 1, "", "a", &[]),
        row(3, 2, "", "b", &[]),
        row(6, 3, "", "c", &["b"]),
        row(4, 4, "", "d", &["b", "c"]),
        row(23, 5, "", "e", &["b", "c", "d"]),
        row(44, 6, "", "f", &["c"]),
        row(7, 7, "", "g", &["f"]),
        row(96, 8, "", "h", &["f", "g"]),
    ];
    assert_eq!(written(&by_references(&rows)), "(2)(3 6 (4 23)(44 7 96))");
    assert_eq!(written(&by_references(&[])), "");
}

#[test]
fn references_step_by_step() {
    for (why, rows, expected) in [
        ("a missing parent with one child is left out", vec![row(1, 1, "", "a", &["x"])], "(1)"),
        (
            "a missing parent with two is a dummy",
            vec![row(1, 2, "", "a", &["x"]), row(2, 1, "", "b", &["x"])],
            "((2)(1))",
        ),
        (
            "missing ones inside are left out",
            vec![row(1, 1, "", "a", &[]), row(2, 2, "", "b", &["a", "x", "y"])],
            "(1 2)",
        ),
        ("the reply may come first", vec![row(1, 2, "", "b", &["a"]), row(2, 1, "", "a", &[])], "(2 1)"),
        ("a circle", vec![row(1, 1, "", "a", &["b"]), row(2, 2, "", "b", &["a"])], "(2 1)"),
        ("itself", vec![row(1, 1, "", "a", &["a"])], "(1)"),
        (
            "two with one id",
            vec![row(1, 1, "", "a", &[]), row(2, 2, "", "a", &[]), row(3, 3, "", "c", &["a"])],
            "(1 3)(2)",
        ),
        ("no id", vec![row(1, 1, "", "", &[]), row(2, 2, "", "", &[])], "(1)(2)"),
        (
            "siblings by date, then number",
            vec![
                row(1, 1, "", "a", &[]),
                row(2, 9, "", "b", &["a"]),
                row(3, 5, "", "c", &["a"]),
                row(4, 5, "", "d", &["a"]),
            ],
            "(1 (3)(4)(2))",
        ),
        ("a reply by its subject", vec![row(1, 1, "x", "a", &[]), row(2, 2, "Re: x", "b", &[])], "(1 2)"),
        ("even if it came first", vec![row(1, 1, "Re: x", "a", &[]), row(2, 2, "x", "b", &[])], "(2 1)"),
        (
            "equals share a dummy",
            vec![row(1, 1, "x", "a", &[]), row(2, 2, "x", "b", &[]), row(3, 3, "x", "c", &[])],
            "((1)(2)(3))",
        ),
        (
            "replies alone share one too",
            vec![row(1, 1, "Re: x", "a", &[]), row(2, 2, "Re: x", "b", &[])],
            "((1)(2))",
        ),
        (
            "a dummy takes what has its subject",
            vec![row(1, 1, "Re: x", "a", &["m"]), row(2, 2, "Re: x", "b", &["m"]), row(3, 3, "x", "c", &[])],
            "((1)(2)(3))",
        ),
        (
            "dummies become one",
            vec![
                row(1, 1, "x", "a", &["m"]),
                row(2, 2, "x", "b", &["m"]),
                row(3, 3, "x", "c", &["n"]),
                row(4, 4, "x", "d", &["n"]),
            ],
            "((1)(2)(3)(4))",
        ),
        ("no subject joins nothing", vec![row(1, 1, "", "a", &[]), row(2, 2, "Re:", "b", &[])], "(1)(2)"),
    ] {
        assert_eq!(written(&by_references(&rows)), expected, "{why}");
    }
}

#[test]
fn ordered_subject() {
    let rows = [
        row(1, 3, "x", "", &[]),
        row(2, 2, "y", "", &[]),
        row(3, 1, "Re: x", "", &[]),
        row(4, 4, "x", "", &[]),
        row(5, 5, "y", "", &[]),
    ];
    assert_eq!(written(&by_subject(&rows)), "(3 (1)(4))(2 5)");
}

#[test]
fn a_long_conversation_needs_no_deep_stack() {
    let ids: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    let rows: Vec<ThreadRow> = (0..ids.len())
        .map(|n| {
            row(
                n as u32 + 1,
                n as i64,
                "x",
                &ids[n],
                &ids[n.saturating_sub(1)..n].iter().map(|id| &id[..]).collect::<Vec<_>>(),
            )
        })
        .collect();
    let text = written(&by_references(&rows));
    assert!(text.starts_with("(1 2 3 ") && text.ends_with(" 100000)"));
}

proptest! {
    #[test]
    fn every_message_is_in_one_thread(
        mails in proptest::collection::vec((0usize..8, proptest::collection::vec(0usize..8, 0..4), 0i64..4, 0usize..4), 0..12)
    ) {
        let ids = ["", "a", "b", "c", "d", "e", "f", "g"];
        let subjects = ["", "x", "Re: x", "y"];
        let rows: Vec<ThreadRow> = mails
            .iter()
            .enumerate()
            .map(|(n, (id, references, date, subject))| {
                let references: Vec<&str> = references.iter().map(|id| ids[*id]).filter(|id| !id.is_empty()).collect();
                row(n as u32 + 1, *date, subjects[*subject], ids[*id], &references)
            })
            .collect();
        for forest in [by_references(&rows), by_subject(&rows)] {
            let text = written(&forest);
            let mut numbers: Vec<u32> =
                text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
            numbers.sort_unstable();
            prop_assert_eq!(&numbers, &(1..=rows.len() as u32).collect::<Vec<_>>(), "{}", text);
            prop_assert!(!text.contains("()") && !text.contains(" )"), "{}", text);
        }
    }
}

fn thread_id(header: &str) -> Option<String> {
    let bytes = made(format!("{header}\n\n"));
    Summary::read(&bytes).unwrap().thread_id()
}

#[test]
fn one_thread_has_one_id() {
    let root = thread_id("Message-ID: <root@x>").unwrap();
    assert!(
        root.len() < 64 && root.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    );
    assert_eq!(thread_id("Message-ID: <b@x>\nIn-Reply-To: <root@x>"), Some(root.clone()));
    assert_eq!(thread_id("References: <root@x>\n <b@x>\nMessage-ID: <c@x>"), Some(root.clone()));
    assert_ne!(thread_id("Message-ID: <other@x>"), Some(root));
    assert_eq!(thread_id("Subject: x"), None);
}

#[test]
fn rows_come_from_summaries() {
    let bytes = made(
        "Message-ID: (x) <a@b>\nIn-Reply-To: your mail <c@d> and <e@f>\nDate: 2 Jan 1970 00:00 +0000\nSubject: Re: Straße\n\n",
    );
    let row = ThreadRow::new(7, 99, &Summary::read(&bytes).unwrap());
    assert_eq!((row.number, row.date, row.is_reply), (7, 86_400, true));
    assert_eq!((row.id, row.references), (Some(label("a@b")), [label("c@d")].into()));
    assert_eq!(row.subject, Some(label("STRASSE")));
    let bytes =
        made("References: <no at sign> <\"a\"@b> <c@\n d> <<e@f> <unclosed@x\nIn-Reply-To: <z@z>\n\n");
    let row = ThreadRow::new(1, 99, &Summary::read(&bytes).unwrap());
    assert_eq!(
        (row.date, row.id, row.references),
        (99, None, [label("a@b"), label("c@d"), label("e@f")].into())
    );
}

#[test]
fn orders_of_rfc_5256() {
    let mails = [
        "Subject: Re: b\nFrom: zed@x\nTo: g: m@n;\nDate: 3 Jan 2000 00:00 +0000\n\n",
        "Subject: [l] A\nFrom: \"=?utf-8?q?=C3=81bc?=\" <Ann@x>\nCc: c@c\nDate: 1 Jan 2000 00:00 -0100\n\n",
        "Subject: b\nFrom: Bob Brown <bob@x>\nTo: a@n\nDate: 1 Jan 2000 00:30 +0000\n\n",
        "From: _ <_@x>\n\n",
    ];
    let bytes: Vec<Vec<u8>> = mails.iter().map(made).collect();
    use crate::grammar::SortKey::*;
    for (by, expected) in [
        (&[][..], [0, 1, 2, 3]),
        (&[(Arrival, false)], [3, 2, 1, 0]),
        (&[(Arrival, true)], [0, 1, 2, 3]),
        // The fourth has no date but its internal one.
        (&[(Date, false)], [3, 2, 1, 0]),
        (&[(Size, false)], [3, 0, 2, 1]),
        (&[(Subject, false)], [3, 1, 0, 2]),
        (&[(Subject, false), (Date, false)], [3, 1, 2, 0]),
        (&[(Subject, true), (Date, true)], [0, 2, 1, 3]),
        (&[(From, false)], [1, 2, 0, 3]),
        (&[(DisplayFrom, false)], [1, 2, 0, 3]),
        (&[(To, false)], [1, 3, 2, 0]),
        (&[(DisplayTo, false)], [1, 3, 2, 0]),
        (&[(Cc, false)], [0, 2, 3, 1]),
        (&[(Subject, false), (Subject, true), (Date, false)], [3, 1, 2, 0]),
    ] {
        let by: Vec<SortCriterion> =
            by.iter().map(|(key, reverse)| SortCriterion { key: *key, reverse: *reverse }).collect();
        let mut sorter = Sorter::new(&by);
        for (bytes, internal_date) in bytes.iter().zip([4, 3, 2, 1]) {
            sorter.add(&Summary::read(bytes).unwrap(), internal_date);
        }
        assert_eq!(sorter.order(), expected, "{by:?}");
    }
}

#[test]
fn what_is_kept_of_a_long_text_is_bounded() {
    let subject = |len: usize, end: &str| made(format!("Subject: {}{end}\n\n", "x".repeat(len)));
    let by = [SortCriterion { key: crate::grammar::SortKey::Subject, reverse: false }];
    for (len, expected) in [(limits::SORT_KEY - 1, [1, 0]), (limits::SORT_KEY, [0, 1])] {
        let mut sorter = Sorter::new(&by);
        for end in ["b", "a"] {
            sorter.add(&Summary::read(&subject(len, end)).unwrap(), 0);
        }
        assert_eq!(sorter.order(), expected, "{len}");
    }
    let ids: String = (0..limits::REFERENCES + 2).map(|n| format!(" <{n}@{}>", "x".repeat(500))).collect();
    let bytes = made(format!("References:{ids}\n\n"));
    let row = ThreadRow::new(1, 0, &Summary::read(&bytes).unwrap());
    assert_eq!(row.references.len(), limits::REFERENCES);
}
