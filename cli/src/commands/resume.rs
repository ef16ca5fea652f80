use clap::Args;
use postmerge::maildir::How;

use super::maildir;
use crate::bridge;
use crate::context::{Code, Context};

/// Goes on where a Maildir was stopped because too much would be removed.
#[derive(Args)]
pub(crate) struct Resume {
    /// Removes what was to be removed, this once.
    #[arg(long, required = true)]
    allow_removals: bool,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Resume {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let Some(maildirs) = cx.hub.known()? else {
            writeln!(cx.out, "no Maildir is attached")?;
            return Ok(Code::DONE);
        };
        let how = How { dry_run: self.dry_run, allow_removals: self.allow_removals, ..cx.hub.how() };
        let (mut rows, mut code) = (Vec::new(), Code::DONE);
        for attachment in maildirs.list()?.into_iter().filter(|attachment| !attachment.brake.is_off()) {
            let report = bridge::run(&maildirs, &attachment, how, &mut cx.progress)?;
            if !self.json {
                maildir::print(cx, &attachment, &report)?;
            }
            if bridge::code(&report) != Code::DONE {
                code = Code::PARTLY;
            }
            rows.push(bridge::as_json(&attachment, &report));
        }
        match (self.json, rows.is_empty()) {
            (true, _) => cx.json(&rows)?,
            (false, true) => writeln!(cx.out, "nothing was stopped")?,
            (false, false) => {}
        }
        Ok(code)
    }
}
