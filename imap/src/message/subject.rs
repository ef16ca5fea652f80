//! The base subject (RFC 5256, section 2.1).

/// What is left of a decoded subject without the marks of replies, forwards and lists, and whether it had one of a
/// reply or a forward. Linear.
pub fn base_subject(subject: &str) -> (String, bool) {
    let mut joined = String::with_capacity(subject.len());
    for word in subject.split(|c: char| c == ' ' || c.is_ascii_control()).filter(|word| !word.is_empty()) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    let (mut rest, mut is_reply) = (&joined[..], false);
    loop {
        while let Some(shorter) = strip_end(rest, "(fwd)") {
            (rest, is_reply) = (shorter.trim_end(), true);
        }
        rest = rest.trim_start();
        while let Some(after) = strip_leader(rest) {
            (rest, is_reply) = (after.trim_start(), true);
        }
        // No leader follows these, else it would have taken them with it.
        while let Some(after) = strip_blob(rest).filter(|after| !after.is_empty()) {
            rest = after;
        }
        match strip_start(rest, "[fwd:").and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => (rest, is_reply) = (inner.trim(), true),
            None => return (rest.to_owned(), is_reply),
        }
    }
}

/// `*subj-blob subj-refwd`: a reply or forward, perhaps after the names of lists.
fn strip_leader(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(after) = strip_blob(rest) {
        rest = after;
    }
    let after =
        strip_start(rest, "fwd").or_else(|| strip_start(rest, "fw")).or_else(|| strip_start(rest, "re"))?;
    let after = after.trim_start();
    strip_blob(after).unwrap_or(after).strip_prefix(':')
}

/// `"[" *BLOBCHAR "]" *WSP`
fn strip_blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

fn strip_start<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_end<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let (rest, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_rfc_5256() {
        for (subject, base, is_reply) in [
            ("", "", false),
            ("hello", "hello", false),
            (" a  b\t c ", "a b c", false),
            ("Re: hello", "hello", true),
            ("RE : re:Fwd:FW: hello", "hello", true),
            ("Re[2]: hello", "hello", true),
            ("re [x] : hello", "hello", true),
            ("[list] hello", "hello", false),
            ("[list] [other] Re: [list] hello", "hello", true),
            ("hello (fwd) (FWD)", "hello", true),
            ("[Fwd: Re: hello (fwd)]", "hello", true),
            ("[Fwd: [Fwd: a]]", "a", true),
            // A blob is kept if nothing else would be left.
            ("[only]", "[only]", false),
            ("Re: [only]", "[only]", true),
            ("[a] [b]", "[b]", false),
            ("Regarding: x", "Regarding: x", false),
            ("fwdx: y", "fwdx: y", false),
            ("[open hello", "[open hello", false),
            ("Re:", "", true),
            ("é: Re: x", "é: Re: x", false),
        ] {
            assert_eq!(base_subject(subject), (base.to_owned(), is_reply), "{subject:?}");
        }
    }

    #[test]
    fn many_lists_cost_no_more_than_their_length() {
        assert_eq!(base_subject(&"[a]".repeat(100_000)).0, "[a]");
        assert_eq!(base_subject(&format!("{}x", "re: ".repeat(100_000))).0, "x");
    }
}
