use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgGroup, Args};
use postmerge::mailbox::MailboxName;
use postmerge::replica::{Replica, Selection};
use postmerge::uid::Undone;
use serde_json::{Value, json};

use crate::context::{Code, Context};
use crate::failure::{Usage, advice};
use crate::text::{Moment, count};

/// Brings back what changes expunged, moved, flagged, deleted or renamed. What was changed again since is left alone.
#[derive(Args)]
#[command(group(ArgGroup::new("which").required(true).args(["changes", "since"])))]
pub(crate) struct Undo {
    /// The changes, as `log` lists them; the first digits do.
    #[arg(value_name = "CHANGE")]
    changes: Vec<String>,
    /// All changes since a time: `2h` or `1d` ago, or a date in UTC as `2026-01-31` or `2026-01-31T18:30`.
    #[arg(long, value_name = "TIME", conflicts_with = "changes")]
    since: Option<Moment>,
    /// With --since: only those before this time.
    #[arg(long, value_name = "TIME", conflicts_with = "changes", requires = "since")]
    until: Option<Moment>,
    /// With --since: only those of this replica, named as `peers` lists it.
    #[arg(long, value_name = "REPLICA", conflicts_with = "changes", requires = "since")]
    by: Option<String>,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Undo {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let selection = self.selection(&cx.replica)?;
        let changes = cx.replica.selected(&selection)?.len();
        let done = match self.dry_run {
            true => cx.replica.plan_undo(&selection)?,
            false => cx.replica.undo(&selection)?,
        };
        if self.json {
            cx.json(&self.report(&done, changes))?;
        } else {
            for line in self.lines(&done) {
                writeln!(cx.out, "{line}")?;
            }
            if done.is_nothing() {
                writeln!(cx.out, "there is nothing to undo in {}", count(changes as u64, "change"))?;
            }
        }
        for entry in &done.without_body {
            writeln!(cx.err, "warning: the body of {entry} is not here: it stays expunged")?;
        }
        for name in &done.taken {
            writeln!(cx.err, "warning: another mailbox is called {name:?} now: its name is not taken away")?;
        }
        Ok(Code::partly_if(!done.without_body.is_empty() || !done.taken.is_empty()))
    }

    fn selection(&self, replica: &Replica) -> anyhow::Result<Selection> {
        if let Some(since) = &self.since {
            let by = self.by.as_ref().map(|name| replica.peer(name)).transpose()?;
            let by = by.map(|peer| peer.member.replica);
            return Ok(Selection::Since {
                from: since.seconds(),
                until: self.until.map(Moment::seconds),
                by,
            });
        }
        let mut changes = BTreeSet::new();
        for digits in &self.changes {
            if digits.len() < 4 {
                let what = format!("{digits:?} is too short to name a change: give four digits at least");
                return Err(Usage(what).into());
            }
            let hint = "`postmerge log` lists changes";
            match replica.find_changes(digits)?.as_slice() {
                [one] => changes.insert(one.change),
                [] => return Err(advice(format!("there is no change {digits}"), hint)),
                _ => return Err(advice(format!("several changes start with {digits}"), "give more digits")),
            };
        }
        Ok(Selection::Changes(changes))
    }

    fn lines(&self, done: &Undone) -> Vec<String> {
        let would = if self.dry_run { "would have " } else { "" };
        let mut lines = Vec::new();
        let each = |counts: &BTreeMap<MailboxName, u64>, what: &str, where_to: &str| {
            let line = |(name, number): (&MailboxName, &u64)| {
                format!("{would}{what} {} {where_to} mailbox {name:?}", count(*number, "message"))
            };
            counts.iter().map(line).collect::<Vec<_>>()
        };
        lines.extend(done.made.iter().map(|name| format!("{would}made mailbox {name:?} again")));
        lines.extend(
            done.renamed.iter().map(|(from, to)| format!("{would}renamed mailbox {from:?} to {to:?}")),
        );
        let attributes = done.attributes.iter();
        lines.extend(attributes.map(|name| format!("{would}given mailbox {name:?} what it had")));
        lines.extend(each(&done.brought_back, "brought back", "to"));
        lines.extend(each(&done.moved_back, "moved back", "to"));
        if done.keywords > 0 {
            lines.push(format!("{would}put back the flags of {}", count(done.keywords, "message")));
        }
        if done.overwritten > 0 {
            let messages = count(done.overwritten, "message");
            lines.push(format!("{messages} left alone: changed again since, or in another way as well"));
        }
        if done.added > 0 {
            lines.push(format!(
                "{} left alone: added there, and an undo removes nothing",
                count(done.added, "message")
            ));
        }
        lines
    }

    fn report(&self, done: &Undone, changes: usize) -> Value {
        let counts = |counts: &BTreeMap<MailboxName, u64>| {
            counts.iter().map(|(name, number)| (name.to_string(), Value::from(*number))).collect::<Value>()
        };
        let names = |names: &BTreeSet<MailboxName>| {
            names.iter().map(|name| Value::from(name.as_str())).collect::<Value>()
        };
        let renamed = done.renamed.iter().map(|(from, to)| json!({"from": from.as_str(), "to": to.as_str()}));
        json!({
            "dry_run": self.dry_run,
            "changes": changes,
            "brought_back": counts(&done.brought_back),
            "moved_back": counts(&done.moved_back),
            "flags": done.keywords,
            "mailboxes_made": names(&done.made),
            "mailboxes_renamed": renamed.collect::<Value>(),
            "attributes": names(&done.attributes),
            "left_alone": {
                "overwritten": done.overwritten,
                "added": done.added,
                "without_body": done.without_body.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "names_taken": names(&done.taken),
            },
        })
    }
}
