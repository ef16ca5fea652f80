use std::time::{Duration, Instant};

use clap::Args;
use postmerge::store::DamagedBody;
use serde_json::{Value, json};

use super::check::bytes_in;
use crate::context::{Code, Context};
use crate::progress::Step;
use crate::text::{count, size};

/// Reads every body again, and asks peers for those that are damaged. The exit code is 1 if any was. `serve` does it by itself,
/// slowly.
#[derive(Args)]
pub(crate) struct Scrub {
    /// Reads no more than so many bytes a second.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes that are read between two looks at the clock.
const STEP: u64 = 1 << 20;

impl Scrub {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let all = bytes_in(&cx.setup.store.join("bodies"));
        (cx.progress)(Step::Start { what: "scrub".into(), messages: None, bytes: all });
        let (start, mut pass) = (Instant::now(), cx.replica.scrub());
        let (mut bytes, mut bodies, mut damaged) = (0, 0, Vec::new());
        while !pass.is_done() {
            let step = self.rate.map_or(STEP, |rate| STEP.min(rate));
            let found = cx.replica.scrub_step(&mut pass, step)?;
            (bytes, bodies) = (bytes + found.bytes, bodies + found.bodies);
            damaged.extend(found.damaged);
            (cx.progress)(Step::At { messages: 0, bytes });
            if let Some(rate) = self.rate.filter(|_| !pass.is_done()) {
                let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        (cx.progress)(Step::End);
        let unhealed = cx.replica.scrub_state()?.unhealed;
        let waits = |body: &DamagedBody| unhealed.contains(&body.blob);
        if self.json {
            let rows = damaged.iter().map(|body| {
                json!({
                    "body": body.blob.to_string(),
                    "path": body.path.display().to_string(),
                    "offset": body.offset,
                    "what": body.what,
                    "owed": waits(body),
                })
            });
            cx.json(&json!({"bytes": bytes, "bodies": bodies, "damaged": rows.collect::<Value>()}))?;
        } else {
            for body in &damaged {
                let (path, DamagedBody { blob, offset, what, .. }) = (body.path.display(), body);
                writeln!(cx.out, "damaged: body {blob} in {path} at byte {offset}: {what}")?;
            }
            match damaged.len() as u64 {
                0 => writeln!(cx.out, "all is well: {bodies} bodies, {}", size(bytes))?,
                some => writeln!(cx.out, "{} of {} damaged", count(some, "body"), bodies + some)?,
            }
        }
        if damaged.iter().any(waits) && cx.serving.is_none() {
            writeln!(cx.err, "Hint: `postmerge sync` asks the peers for what is damaged")?;
        }
        Ok(if damaged.is_empty() { Code::DONE } else { Code::FAILED })
    }
}
