//! The format of a transcript.
//!
//! | line | |
//! |---|---|
//! | `# text` | why the case exists |
//! | `@ not dovecot: why` | a server that is known to do otherwise |
//! | `@ greeting` | the conversation starts with the greeting, not logged in; `{user}` and `{password}` are bound |
//! | `@ do COMMAND` | a command in an earlier session, which must succeed |
//! | `@ append MAILBOX (FLAGS) <<END` | the same for a message, whose lines follow until `END`; a date may stand after the flags |
//! | `C: text` | a line of the client; lines of a literal are lines too |
//! | `S: text` | a line of the server, in this order |
//! | `S* text` | a line that comes before the next `C:` or tagged line |
//! | `S? text` | lines that may come until then, any number of them |
//!
//! `C2:`, `S2:` and so on are a second session. In an expected line `{name}` stands for a word; where it comes again, in a
//! line of the client too, it is the same word, except for `{_}`. `...` stands for anything. Attributes of `FETCH` and
//! `STATUS`, and flags, may come in any order.

/// A case.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Names of servers that are known to do otherwise.
    pub(crate) unfit: Vec<String>,
    pub(crate) greeting: bool,
    pub(crate) setup: Vec<Setup>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) enum Setup {
    Command(String),
    /// A mailbox, what follows its name in the command, and a message with CR LF.
    Append {
        mailbox: String,
        arguments: String,
        message: String,
    },
}

/// A line of a conversation.
#[derive(Debug)]
pub(crate) struct Step {
    /// Counts from 1 in the file.
    pub(crate) line: usize,
    /// 1 unless said otherwise.
    pub(crate) session: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Client,
    Ordered,
    Unordered,
    Optional,
}

impl Script {
    /// # Errors
    /// What is wrong, with the number of the line.
    pub(crate) fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            if let Some(setup) = line.strip_prefix("@ ") {
                script.set_up(setup, &mut lines).map_err(|what| format!("line {number}: {what}"))?;
            } else if !line.is_empty() && !line.starts_with('#') {
                let step = step(number, line).ok_or_else(|| format!("line {number} is neither C nor S"))?;
                script.steps.push(step);
            }
        }
        script.check_literals()?;
        match script.steps.last() {
            Some(step) if step.kind != Kind::Client => Ok(script),
            _ => Err("a case ends with what the server says".into()),
        }
    }

    fn set_up<'a>(
        &mut self,
        text: &str,
        lines: &mut impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<(), String> {
        if text == "greeting" {
            self.greeting = true;
        } else if let Some((server, _)) = text.strip_prefix("not ").and_then(|rest| rest.split_once(": ")) {
            self.unfit.push(server.into());
        } else if let Some(command) = text.strip_prefix("do ") {
            self.setup.push(Setup::Command(command.into()));
        } else {
            let append = text.strip_prefix("append ").and_then(|rest| rest.strip_suffix(" <<END"));
            let (mailbox, arguments) = append.and_then(|rest| rest.split_once(' ')).ok_or("unknown setup")?;
            let mut message = String::new();
            loop {
                match lines.next() {
                    Some((_, "END")) => break,
                    Some((_, line)) => message.extend([line, "\r\n"]),
                    None => return Err("a message without END".into()),
                }
            }
            let (mailbox, arguments) = (mailbox.into(), arguments.into());
            self.setup.push(Setup::Append { mailbox, arguments, message });
        }
        Ok(())
    }

    /// A literal whose length is wrong would make a case fail far from its fault.
    fn check_literals(&self) -> Result<(), String> {
        for (at, step) in self.steps.iter().enumerate() {
            let Some(mut left) = literal(&step.text) else { continue };
            let mut rest = self.steps[at + 1..].iter();
            while left > 0 {
                // A server may have to ask for it first.
                let next =
                    rest.by_ref().find(|next| !(step.kind == Kind::Client && next.text.starts_with('+')));
                let fits = next.filter(|next| next.kind == step.kind && next.session == step.session);
                let line = fits.ok_or_else(|| format!("line {}: its literal has no end", step.line))?;
                if line.text.contains("...") {
                    break;
                }
                // What is left of the line after the literal ends belongs to the command.
                left = left.saturating_sub(line.text.len() + 2);
            }
        }
        Ok(())
    }
}

fn step(line: usize, text: &str) -> Option<Step> {
    let side = text.chars().next()?;
    let rest = &text[1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let session = if digits == 0 { 1 } else { rest[..digits].parse().ok()? };
    let mark = rest[digits..].chars().next()?;
    let kind = match (side, mark) {
        ('C', ':') => Kind::Client,
        ('S', ':') => Kind::Ordered,
        ('S', '*') => Kind::Unordered,
        ('S', '?') => Kind::Optional,
        _ => return None,
    };
    let text = &rest[digits + 1..];
    // An empty line may have lost the blank behind its mark.
    Some(Step { line, session, kind, text: text.strip_prefix(' ').unwrap_or(text).into() })
}

/// The length that a line announces at its end.
fn literal(line: &str) -> Option<usize> {
    let (_, digits) = line.strip_suffix('}')?.rsplit_once('{')?;
    digits.trim_end_matches('+').parse().ok()
}
