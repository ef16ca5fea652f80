//! The whole idea in one command.

mod client;
mod imap;
mod mail;
mod side;
mod story;
mod verdict;

use std::io::Write;

use clap::Args;

use self::client::Told;
use self::imap::Known;
use self::verdict::{Affected, Place, Verdict};
use crate::context::Code;
use crate::paths::Setup;
use crate::text;

/// Lets two servers lose each other and meet again, in temporary directories, and shows that no UID lied.
#[derive(Args)]
pub(crate) struct Demo {
    /// Prints the facts as JSON.
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        let dir = tempfile::tempdir()?;
        let mut out = std::io::stdout();
        let quiet = self.json;
        let story = story::tell(dir.path(), &setup.runtime, &mut |step| {
            if !quiet {
                // A closed standard output is noticed at the end.
                let _ = writeln!(std::io::stdout(), "{step}");
            }
        })?;
        let verdict = Verdict::of(&story)?;
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&verdict)?)?;
        } else {
            show(&verdict, &story, &mut out)?;
        }
        if verdict.held() {
            return Ok(Code::DONE);
        }
        for promise in &verdict.promises {
            for broken in &promise.broken {
                eprintln!("BROKEN {}: {broken}", promise.name);
            }
        }
        Ok(Code::FAILED)
    }
}

fn show(verdict: &Verdict, story: &story::Story, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "\nEach message that something happened to, before the two met again and after:\n")?;
    let cells: Vec<Vec<String>> = verdict.messages.iter().map(cells).collect();
    let head = ["message", "on A before", "on B before", "on both now", "flags now"];
    text::table(out, &head, &cells, &[])?;
    writeln!(out, "\nUIDs that are burned, which nobody will ever use again:\n")?;
    let cells: Vec<Vec<String>> = verdict
        .burned
        .iter()
        .map(|burned| {
            let place = format!("{} {}", burned.mailbox, burned.uid);
            vec![place, burned.subject.clone(), format!("{} ({})", burned.why, burned.rule)]
        })
        .collect();
    text::table(out, &["UID", "message", "why"], &cells, &[])?;
    for (name, told) in ["A", "B"].iter().zip(&verdict.told) {
        writeln!(out, "\nWhat the caching client of {name} was told:")?;
        for told in told {
            writeln!(out, "  {}", line(told, story))?;
        }
    }
    for (name, heard) in ["A", "B"].iter().zip(&verdict.imap) {
        writeln!(out, "\nThe IMAP session that was in IDLE at {name}:")?;
        // The names of all flags, when there is a new one, are long and tell nothing here.
        for line in heard.lines.iter().filter(|line| !line.contains("FLAGS ($Forwarded")) {
            writeln!(out, "  {line}")?;
        }
        if !heard.known.is_empty() {
            let known: Vec<String> =
                heard.known.iter().map(|Known { was, is }| format!("UID {is} was {was}")).collect();
            writeln!(out, "  EMAILID says that the client has these bodies: {}.", known.join(", "))?;
        }
    }
    let (messages, mailboxes) = story.views[2][0]
        .values()
        .fold((0, 0), |(messages, mailboxes), sight| (messages + sight.messages.len(), mailboxes + 1));
    let equal = if verdict.equal { "are equal" } else { "DIFFER" };
    writeln!(
        out,
        "\nThe two sides {equal}: {mailboxes} mailboxes, {messages} messages, all UIDs and flags.\n"
    )?;
    for promise in &verdict.promises {
        let held = if promise.broken.is_empty() { "held  " } else { "BROKEN" };
        writeln!(out, "  {held} {} {}", promise.name, promise.what)?;
    }
    Ok(())
}

fn cells(message: &Affected) -> Vec<String> {
    let place = |place: &Place| match place {
        Some((mailbox, uid)) => format!("{mailbox} {uid}"),
        None => "–".into(),
    };
    let [a, b] = &message.before;
    let now = match &message.after {
        [left, right] if left != right => format!("A {} / B {}", place(left), place(right)),
        [None, _] => "expunged".into(),
        [both, _] => place(both),
    };
    vec![message.subject.clone(), place(a), place(b), now, message.flags.join(" ")]
}

fn line(told: &Told, story: &story::Story) -> String {
    match told {
        Told::Vanished { mailbox, uids } => {
            let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
            format!("{mailbox}: VANISHED {}", uids.join(","))
        }
        Told::New { mailbox, uid, entry } => {
            let subject = entry.parse().ok().and_then(|entry| story.subjects.get(&entry));
            format!("{mailbox}: new UID {uid}, {}", subject.map_or("?", String::as_str))
        }
        Told::Flags { mailbox, uid, flags } => format!("{mailbox}: UID {uid} has {}", flags.join(" ")),
    }
}
