use std::str::FromStr;

use clap::Args;
use postmerge::mailbox::{EntryId, MailboxName, Uid};
use postmerge::replica::{Story, Told};
use serde_json::{Value, json};

use super::tell::Names;
use crate::context::{Code, Context};
use crate::text;

/// Says what happened to a message: who did what to it and when, and what lost against what.
#[derive(Args)]
pub(crate) struct Why {
    /// The message: its entry, or MAILBOX/UID, also one that is not there any more.
    message: Meant,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
enum Meant {
    Entry(EntryId),
    Uid(MailboxName, Uid),
}

impl FromStr for Meant {
    type Err = String;

    fn from_str(text: &str) -> Result<Meant, String> {
        let how = || "a message is named as MAILBOX/UID, or by its entry".to_owned();
        match text.rsplit_once('/') {
            None => text.parse().map(Meant::Entry).map_err(|_| how()),
            Some((mailbox, uid)) => {
                let uid = uid.parse().ok().and_then(Uid::new).ok_or_else(how)?;
                Ok(Meant::Uid(mailbox.parse().map_err(|error| format!("{error}"))?, uid))
            }
        }
    }
}

impl Why {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let entry = match &self.message {
            Meant::Entry(entry) => *entry,
            Meant::Uid(mailbox, uid) => cx.replica.bearer(mailbox, *uid)?,
        };
        let story = cx.replica.why(entry)?;
        let names = Names::read(&cx.replica)?;
        if self.json {
            cx.json(&report(&names, &story))?;
            return Ok(Code::DONE);
        }
        writeln!(cx.out, "message {entry}, {}, {}", text::size(story.size), now(&names, &story))?;
        let cells = |told: &Told| {
            let (when, by) = (text::instant(told.stamp.time), names.replica(told.stamp.replica));
            let mut what = names.words(&told.deed, 1);
            if let Some(uid) = told.uid {
                what = what.replacen("1 UID", &format!("UID {uid}"), 1);
            }
            vec![told.stamp.change.short(), when, by, what]
        };
        let cells: Vec<Vec<String>> = story.told.iter().map(cells).collect();
        text::table(&mut cx.out, &["change", "date", "by", "what"], &cells, &[])?;
        for decision in &story.decisions {
            for line in names.decision(decision) {
                writeln!(cx.out, "{line}")?;
            }
        }
        Ok(Code::DONE)
    }
}

fn now(names: &Names, story: &Story) -> String {
    let body = if story.has_body { "its body is here" } else { "its body is not here" };
    match (story.mailbox, story.uid) {
        (None, _) => format!("expunged; {body}"),
        (Some(mailbox), Some(uid)) => format!("in {} as UID {uid}; {body}", names.mailbox(mailbox)),
        (Some(mailbox), None) => format!("in {}, without a UID yet; {body}", names.mailbox(mailbox)),
    }
}

fn report(names: &Names, story: &Story) -> Value {
    let told = |told: &Told| {
        let mut all = names.stamp(&told.stamp);
        all["did"] = names.deed(&told.deed);
        all["uid"] = told.uid.map(Uid::value).into();
        all
    };
    json!({
        "entry": story.entry.to_string(),
        "blob": story.blob.to_string(),
        "size": story.size,
        "has_body": story.has_body,
        "mailbox": story.mailbox.map(|id| names.mailbox(id)),
        "uid": story.uid.map(Uid::value),
        "flags": story.keywords.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "history": story.told.iter().map(told).collect::<Vec<_>>(),
        "conflicts": story.decisions.iter().map(|one| names.decision_json(one)).collect::<Vec<_>>(),
    })
}
