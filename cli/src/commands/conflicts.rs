use clap::Args;
use serde_json::json;

use super::tell::Names;
use crate::context::{Code, Context};
use crate::text::count;

/// Lists what merges had to decide, newest first: what was changed in two ways at once, what holds and what lost.
#[derive(Args)]
pub(crate) struct Conflicts {
    /// How many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Among how many of the last changes.
    #[arg(long, default_value_t = 10_000)]
    changes: u64,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Conflicts {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let names = Names::read(&cx.replica)?;
        let found = cx.replica.conflicts(self.limit, self.changes)?;
        if self.json {
            let decisions: Vec<_> = found.decisions.iter().map(|one| names.decision_json(one)).collect();
            cx.json(&json!({"conflicts": decisions, "changes": found.changes, "more": found.more}))?;
            return Ok(Code::DONE);
        }
        for decision in &found.decisions {
            for line in names.decision(decision) {
                writeln!(cx.out, "{line}")?;
            }
        }
        let looked = count(found.changes, "change");
        match (found.decisions.is_empty(), found.more) {
            (true, false) => writeln!(cx.err, "no conflict in {looked}")?,
            (_, true) => writeln!(cx.err, "looked at the last {looked}; --limit and --changes look further")?,
            (false, false) => {}
        }
        Ok(Code::DONE)
    }
}
