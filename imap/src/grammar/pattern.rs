//! Patterns of LIST (RFC 9051, section 6.3.9).

use std::fmt;

use postmerge::mailbox::MailboxName;
use unicode_normalization::UnicodeNormalization;

use super::names::NameEncoding;

/// A pattern over mailbox names: `%` stands for anything within a level, `*` for anything.
#[derive(Clone, PartialEq, Eq)]
pub struct ListPattern(Option<Vec<Step>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Char(char),
    /// `*`
    Any,
    /// `%`
    AnyInLevel,
}

impl ListPattern {
    /// Longest pattern in steps: a longer one than a name, with a wildcard at each of its levels, matches nothing.
    pub const MAX_LEN: usize = MailboxName::MAX_LEN + 2 * MailboxName::MAX_LEVELS;

    /// Puts the reference before the pattern, as they are spelled on the wire.
    ///
    /// What no name can match (misspelled, too long) makes a pattern that matches nothing, as RFC 5258 demands.
    pub(super) fn new(reference: &[u8], pattern: &[u8], names: NameEncoding) -> ListPattern {
        let spelled = [reference, pattern].concat();
        let Ok(text) = names.decode(&spelled) else { return ListPattern(None) };
        let mut steps: Vec<Step> = Vec::new();
        for c in text.nfc() {
            let step = match c {
                '*' => Step::Any,
                '%' => Step::AnyInLevel,
                c => Step::Char(c),
            };
            match (steps.last_mut(), step) {
                (Some(Step::Any), Step::Any | Step::AnyInLevel) => {}
                (Some(Step::AnyInLevel), Step::AnyInLevel) => {}
                (Some(last @ Step::AnyInLevel), Step::Any) => *last = Step::Any,
                _ => steps.push(step),
            }
        }
        ListPattern((steps.len() <= ListPattern::MAX_LEN).then_some(steps))
    }

    /// Whether the pattern, with its reference, has no characters.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the whole of `name` fits. INBOX as the first level fits in any case of letters.
    ///
    /// Costs at most the length of the name times that of the pattern.
    pub fn matches(&self, name: &MailboxName) -> bool {
        self.matches_text(name.as_str())
    }

    /// Keeps every place of the pattern that the characters so far can lead to, lowest first.
    fn matches_text(&self, name: &str) -> bool {
        let Some(steps) = &self.0 else { return false };
        let inbox = if name == "INBOX" || name.starts_with("INBOX/") { 5 } else { 0 };
        let (mut here, mut next) = (Vec::new(), Vec::new());
        arrive(steps, 0, &mut here);
        for (at, c) in name.char_indices() {
            for place in here.drain(..) {
                match steps.get(place) {
                    Some(Step::Any) => arrive(steps, place, &mut next),
                    Some(Step::AnyInLevel) if c != '/' => arrive(steps, place, &mut next),
                    Some(Step::Char(wanted))
                        if *wanted == c || at < inbox && wanted.eq_ignore_ascii_case(&c) =>
                    {
                        arrive(steps, place + 1, &mut next);
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut here, &mut next);
        }
        here.last() == Some(&steps.len())
    }
}

impl fmt::Debug for ListPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(steps) = &self.0 else { return f.write_str("nothing") };
        let chars = steps.iter().map(|step| match step {
            Step::Char(c) => *c,
            Step::Any => '*',
            Step::AnyInLevel => '%',
        });
        fmt::Debug::fmt(&chars.collect::<String>(), f)
    }
}

/// Adds a place, and the one after it where a wildcard may stand for nothing.
fn arrive(steps: &[Step], place: usize, places: &mut Vec<usize>) {
    let wildcard = matches!(steps.get(place), Some(Step::Any | Step::AnyInLevel));
    for place in place..=place + usize::from(wildcard) {
        if places.last().is_none_or(|last| *last < place) {
            places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> ListPattern {
        ListPattern::new(b"", text.as_bytes(), NameEncoding::Utf8)
    }

    #[test]
    fn table() {
        for (text, fits, others) in [
            ("*", &["INBOX", "a/b/c"][..], &[][..]),
            ("%", &["INBOX", "a"], &["a/b"]),
            ("a/%", &["a/b"], &["a", "a/b/c", "b/a"]),
            ("a*", &["a", "a/b", "ab/c"], &["b"]),
            ("%/b", &["a/b"], &["b", "a/c/b"]),
            ("*/b", &["a/b", "a/c/b"], &["b"]),
            ("%*", &["a", "a/b"], &[]),
            ("*%", &["a", "a/b"], &[]),
            ("inbox", &["INBOX"], &["INBOX/a", "Inboxes"]),
            ("iNb%/A", &["INBOX/A"], &["INBOX/a"]),
            ("INBOX*", &["INBOX", "INBOX/x"], &["Inboxes"]),
            ("inboxes", &[], &["Inboxes"]),
            ("Mu\u{308}ller", &["Müller"], &["Muller"]),
            ("", &[], &["a", "INBOX"]),
        ] {
            for name in fits {
                assert!(pattern(text).matches(&name.parse().unwrap()), "{text} should fit {name}");
            }
            for name in others {
                assert!(!pattern(text).matches(&name.parse().unwrap()), "{text} should not fit {name}");
            }
        }
    }

    #[test]
    fn reference_and_modified_utf7() {
        let pattern = ListPattern::new(b"&AOQ-/", b"%", NameEncoding::ModifiedUtf7);
        assert!(pattern.matches(&"ä/x".parse().unwrap()));
        assert!(!pattern.matches(&"ä".parse().unwrap()));
        let misspelled = ListPattern::new(b"", b"Tom & *", NameEncoding::ModifiedUtf7);
        assert!(!misspelled.matches(&"Tom & Jerry".parse().unwrap()));
        assert!(!misspelled.is_empty());
        assert!(ListPattern::new(b"", b"", NameEncoding::ModifiedUtf7).is_empty());
        let long = "a".repeat(ListPattern::MAX_LEN + 1);
        assert!(!ListPattern::new(b"*", long.as_bytes(), NameEncoding::Utf8).matches_text(&long));
    }

    #[test]
    fn many_wildcards_are_not_exponential() {
        let pattern = pattern(&"%a*".repeat(150));
        assert!(!pattern.matches_text(&"a".repeat(140)));
        assert!(pattern.matches_text(&"a".repeat(400)));
    }

    /// The definition, tried in every way.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            (['*', rest @ ..], name) => (0..=name.len()).any(|skip| naive(rest, &name[skip..])),
            (['%', rest @ ..], name) => {
                let level = name.iter().position(|c| *c == '/').unwrap_or(name.len());
                (0..=level).any(|skip| naive(rest, &name[skip..]))
            }
            ([c, rest @ ..], [first, others @ ..]) => c == first && naive(rest, others),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_the_definition_says(text in "[ab/%*]{0,8}", name in "[ab/]{0,10}") {
            let chars: (Vec<char>, Vec<char>) = (text.chars().collect(), name.chars().collect());
            prop_assert_eq!(pattern(&text).matches_text(&name), naive(&chars.0, &chars.1));
        }
    }
}
