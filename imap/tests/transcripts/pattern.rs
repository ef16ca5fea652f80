//! Whether a line is as expected.

use std::collections::BTreeMap;

/// What the names of a case stand for so far.
pub(crate) type Names = BTreeMap<String, String>;

/// Whether a line is as expected, in the order that it has or in another one where order means nothing. Binds names if so.
pub(crate) fn matches(pattern: &str, line: &str, names: &mut Names) -> bool {
    let mut tried = names.clone();
    let fits = fit(pattern, line, &mut tried) || fit(&ordered(pattern), &ordered(line), &mut tried);
    if fits {
        *names = tried;
    }
    fits
}

/// Puts in what is bound.
pub(crate) fn fill(text: &str, names: &Names) -> String {
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn fit(pattern: &str, line: &str, names: &mut Names) -> bool {
    if let Some(rest) = pattern.strip_prefix("...") {
        return rest.is_empty() || line.char_indices().any(|(at, _)| fit(rest, &line[at..], names));
    }
    if let Some((name, rest)) = name(pattern) {
        if let Some(value) = names.get(name).cloned() {
            return line.strip_prefix(&value).is_some_and(|line| fit(rest, line, names));
        }
        let word = line.find(|c| " ()[]\"".contains(c)).unwrap_or(line.len());
        for (end, _) in
            line.char_indices().skip(1).chain([(line.len(), ' ')]).take_while(|(end, _)| *end <= word)
        {
            let mut tried = names.clone();
            if name != "_" {
                tried.insert(name.to_owned(), line[..end].to_owned());
            }
            if end > 0 && fit(rest, &line[end..], &mut tried) {
                *names = tried;
                return true;
            }
        }
        return false;
    }
    match (pattern.chars().next(), line.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => fit(&pattern[a.len_utf8()..], &line[b.len_utf8()..], names),
        _ => false,
    }
}

/// A name that a pattern starts with; a number in braces is a literal.
fn name(pattern: &str) -> Option<(&str, &str)> {
    let (name, rest) = pattern.strip_prefix('{')?.split_once('}')?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_')).then_some((name, rest))
}

/// The same with attributes and flags sorted, and a mailbox's name bare where it may be. What is not balanced, as the
/// first line of a literal, stays as it is.
fn ordered(line: &str) -> String {
    let line = &if line.starts_with("* LIST ") || line.starts_with("* STATUS ") {
        bare(line)
    } else {
        line.to_owned()
    };
    let Some(open) = line.find('(') else { return line.to_owned() };
    let Some(close) = closing(&line[open..]).map(|at| open + at) else { return line.to_owned() };
    let (head, list, tail) = (&line[..open], &line[open + 1..close], &line[close..]);
    let mut items = items(list);
    if head.contains(" FETCH ") || head.starts_with("* STATUS ") {
        let flags = |pair: &[String]| match pair {
            [name, value] if name == "FLAGS" => format!("{name} {}", ordered(value)),
            pair => pair.join(" "),
        };
        items = items.chunks(2).map(flags).collect();
    }
    items.sort();
    format!("{head}({}{tail}", items.join(" "))
}

/// Without the quotes around what could be an atom.
fn bare(line: &str) -> String {
    let atom = |c: char| c.is_ascii_graphic() && !"(){%*\"\\]".contains(c);
    let word = |word: &str| match word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.is_empty() && inner.chars().all(atom) => inner.to_owned(),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Where the parenthesis closes that a text opens with.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// What stands between the blanks that are in no list, section or string.
fn items(list: &str) -> Vec<String> {
    let (mut items, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in list.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            ' ' if !quoted && depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("there is one from the start").push(c);
    }
    items
}

#[test]
fn lines_and_what_is_expected() {
    let yes = |pattern, line| matches(pattern, line, &mut Names::new());
    assert!(yes("a1 OK ...", "a1 OK [READ-WRITE] done"));
    assert!(!yes("a1 OK ...", "a1 NO done"));
    assert!(yes("* 1 FETCH (UID 7 FLAGS (\\Seen x))", "* 1 FETCH (FLAGS (x \\Seen) UID 7)"));
    assert!(!yes("* 1 FETCH (UID 7 FLAGS (\\Seen))", "* 1 FETCH (FLAGS (\\Seen x) UID 7)"));
    assert!(!yes("* 1 FETCH (UID 7 MODSEQ (8))", "* 1 FETCH (UID 8 MODSEQ (7))"));
    assert!(yes("* STATUS \"a b\" (MESSAGES 1 UIDNEXT {n})", "* STATUS \"a b\" (UIDNEXT 5 MESSAGES 1)"));
    assert!(yes("* LIST (...) \"/\" Work", "* LIST () \"/\" \"Work\""));
    assert!(!yes("* LIST (...) \"/\" \"a b\"", "* LIST () \"/\" a b"));
    assert!(yes("S {12}", "S {12}") && !yes("S {12}", "S {13}"));
    let mut names = Names::new();
    assert!(matches("* OK [UIDVALIDITY {v}] ...", "* OK [UIDVALIDITY 77] fine", &mut names));
    assert!(!matches("{v} {w}", "78 1", &mut names) && matches("{v} {w} {_}", "77 1 2", &mut names));
    assert_eq!(fill("SELECT x (QRESYNC ({v} {w})) {_} {3}", &names), "SELECT x (QRESYNC (77 1)) {_} {3}");
}
