use std::collections::BTreeMap;

use clap::Args;
use postmerge::replica::{Deed, Happened};
use serde_json::{Value, json};

use super::tell::Names;
use crate::context::{Code, Context};
use crate::text;

/// Lists the last changes, newest first: who made them, when, and what they did. Times are those of their authors' clocks.
#[derive(Args)]
pub(crate) struct Log {
    /// How many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Log {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let names = Names::read(&cx.replica)?;
        let happened = cx.replica.happened(self.limit)?;
        if self.json {
            let rows: Vec<Value> = happened.iter().map(|change| row(&names, change)).collect();
            cx.json(&rows)?;
            return Ok(Code::DONE);
        }
        let cells = |change: &Happened| {
            let stamp = &change.stamp;
            let (when, by) = (text::instant(stamp.time), names.replica(stamp.replica));
            vec![stamp.change.short(), when, by, did(&names, &change.deeds)]
        };
        let cells: Vec<Vec<String>> = happened.iter().map(cells).collect();
        text::table(&mut cx.out, &["change", "date", "by", "what"], &cells, &[])?;
        Ok(Code::DONE)
    }
}

fn row(names: &Names, change: &Happened) -> Value {
    let mut row = names.stamp(&change.stamp);
    let counted = |(deed, number): (&Deed, &u64)| {
        let mut deed = names.deed(deed);
        deed["count"] = (*number).into();
        deed
    };
    row["did"] = change.deeds.iter().map(counted).collect();
    row["what"] = did(names, &change.deeds).into();
    row["commit"] = change.position.0.into();
    row["bytes"] = json!(change.bytes);
    row
}

/// What a change did. That messages which it brings or moves get UIDs goes without saying.
fn did(names: &Names, deeds: &BTreeMap<Deed, u64>) -> String {
    let others = deeds.keys().any(|deed| !matches!(deed, Deed::Claimed { .. }));
    let told = deeds.iter().filter(|(deed, _)| !(others && matches!(deed, Deed::Claimed { .. })));
    told.map(|(deed, number)| names.words(deed, *number)).collect::<Vec<_>>().join(", ")
}
