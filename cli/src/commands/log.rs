use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::context::{Code, Context};
use crate::text;

/// Lists the last changes: who made them, when, and what they touched.
#[derive(Args)]
pub(crate) struct Log {
    /// How many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    position: u64,
    replica: String,
    name: Option<String>,
    seq: u64,
    time: i64,
    packs: usize,
    moved_or_expunged: usize,
    flags: usize,
    mailboxes: usize,
    uid_claims: usize,
    bytes: usize,
}

impl Log {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let peers = cx.replica.peers()?.into_iter();
        let names: BTreeMap<_, _> = peers.map(|peer| (peer.member.replica, peer.member.name)).collect();
        let rows: Vec<Row> = cx
            .replica
            .history(self.limit)?
            .into_iter()
            .map(|(position, change)| {
                let touched = change.touched();
                Row {
                    position: position.0,
                    replica: change.replica().to_string(),
                    name: names.get(&change.replica()).map(ToString::to_string),
                    seq: change.seq(),
                    time: change.time(),
                    packs: touched.packs.len(),
                    moved_or_expunged: touched.places.len(),
                    flags: touched.keywords.len(),
                    mailboxes: touched.mailboxes.len(),
                    uid_claims: touched.uids.len(),
                    bytes: change.bytes().len(),
                }
            })
            .collect();
        if self.json {
            cx.json(&rows)?;
            return Ok(Code::DONE);
        }
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        text::table(&mut cx.out, &["commit", "date", "by", "no.", "what"], &cells, &[0, 3])?;
        Ok(Code::DONE)
    }
}

fn cells(row: &Row) -> Vec<String> {
    let parts = [
        (row.packs, "delivery"),
        (row.moved_or_expunged, "moved or expunged"),
        (row.flags, "flag"),
        (row.mailboxes, "mailbox"),
        (row.uid_claims, "UID claim"),
    ];
    let what: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what} ×{n}")).collect();
    let by = row.name.clone().unwrap_or_else(|| row.replica[..8].to_owned());
    vec![row.position.to_string(), text::date(row.time), by, row.seq.to_string(), what.join(", ")]
}
