//! `dovecot-keywords`: which keyword a lower-case letter in a folder's file names stands for.

use std::collections::BTreeMap;

use super::list::{LineError, LineProblem, lines};
use crate::mailbox::Keyword;

/// A folder's keyword letters, `a` to `z`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeywordTable {
    by_letter: BTreeMap<u8, Keyword>,
    /// Lines whose text is no IMAP keyword: their letters stay taken and are written back as they were.
    foreign: BTreeMap<u8, Box<str>>,
}

impl KeywordTable {
    /// How many letters there are. The keywords beyond live only with us.
    pub const MAX: usize = 26;

    /// Reads the lines `<0-25> <keyword>`.
    pub fn parse(bytes: &[u8]) -> Result<KeywordTable, LineError> {
        let mut table = KeywordTable::default();
        for (index, line) in lines(bytes).enumerate() {
            if line.is_empty() {
                continue;
            }
            let (letter, text) = line_fields(line).map_err(|problem| problem.at(index))?;
            if table.is_taken(letter) {
                return Err(LineProblem::Index.at(index));
            }
            match text.parse() {
                Ok(keyword) => drop(table.by_letter.insert(letter, keyword)),
                Err(_) => drop(table.foreign.insert(letter, text.into())),
            }
        }
        Ok(table)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let own = self.by_letter.iter().map(|(letter, keyword)| (*letter, keyword.as_str()));
        let foreign = self.foreign.iter().map(|(letter, text)| (*letter, &**text));
        let all: BTreeMap<u8, &str> = own.chain(foreign).collect();
        all.iter()
            .map(|(letter, text)| format!("{} {text}\n", letter - b'a'))
            .collect::<String>()
            .into_bytes()
    }

    /// What a letter stands for.
    pub fn keyword(&self, letter: u8) -> Option<&Keyword> {
        self.by_letter.get(&letter)
    }

    /// The (first) letter of a keyword.
    pub fn letter(&self, keyword: &Keyword) -> Option<u8> {
        self.by_letter.iter().find(|(_, own)| *own == keyword).map(|(letter, _)| *letter)
    }

    /// The keyword's letter, a new one if it has none; nothing once all are taken.
    pub fn add(&mut self, keyword: &Keyword) -> Option<u8> {
        if let Some(letter) = self.letter(keyword) {
            return Some(letter);
        }
        let letter = (b'a'..=b'z').find(|letter| !self.is_taken(*letter))?;
        self.by_letter.insert(letter, keyword.clone());
        Some(letter)
    }

    /// Whether the file would be empty.
    pub fn is_empty(&self) -> bool {
        self.by_letter.is_empty() && self.foreign.is_empty()
    }

    fn is_taken(&self, letter: u8) -> bool {
        self.by_letter.contains_key(&letter) || self.foreign.contains_key(&letter)
    }
}

fn line_fields(line: &[u8]) -> Result<(u8, &str), LineProblem> {
    let line = std::str::from_utf8(line).map_err(|_| LineProblem::KeywordLine)?;
    let (number, text) =
        line.split_once(' ').filter(|(_, text)| !text.is_empty()).ok_or(LineProblem::KeywordLine)?;
    match number.parse::<u8>() {
        Ok(number) if usize::from(number) < KeywordTable::MAX => Ok((b'a' + number, text)),
        _ => Err(LineProblem::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_comes_back_with_its_gaps_and_foreign_lines() {
        let bytes = b"0 work\n2 $Junk\n3 caf\xc3\xa9\n";
        let mut table = KeywordTable::parse(bytes).unwrap();
        assert_eq!(table.to_bytes(), bytes);
        assert_eq!(table.keyword(b'c').unwrap().as_str(), "$Junk");
        assert_eq!(table.add(&"home".parse().unwrap()), Some(b'b'));
        assert_eq!(table.add(&"shop".parse().unwrap()), Some(b'e'), "d is a foreign keyword's");
        assert_eq!(table.add(&"work".parse().unwrap()), Some(b'a'));
    }

    #[test]
    fn the_27th_keyword_has_no_letter() {
        let mut table = KeywordTable::default();
        let letters: Vec<_> = (0..27).map(|n| table.add(&format!("k{n}").parse().unwrap())).collect();
        assert_eq!((letters[25], letters[26]), (Some(b'z'), None));
    }

    #[test]
    fn damaged_lines_are_named() {
        for (bytes, line, problem) in [
            (&b"0 a\n26 b\n"[..], 2, LineProblem::Index),
            (b"0 a\n0 b\n", 2, LineProblem::Index),
            (b"x a\n", 1, LineProblem::Index),
            (b"0\n", 1, LineProblem::KeywordLine),
            (b"0 \n", 1, LineProblem::KeywordLine),
            (b"0 \xff\n", 1, LineProblem::KeywordLine),
        ] {
            assert_eq!(KeywordTable::parse(bytes), Err(LineError { line, problem }));
        }
        assert!(KeywordTable::parse(b"0 wo").unwrap().is_empty(), "a line that is being written");
    }

    proptest! {
        #[test]
        fn tables_come_back(texts in proptest::collection::btree_set("[a-z]{1,8}", 0..26)) {
            let mut table = KeywordTable::default();
            for text in &texts {
                table.add(&text.parse().unwrap());
            }
            prop_assert_eq!(KeywordTable::parse(&table.to_bytes()).unwrap(), table);
        }
    }
}
