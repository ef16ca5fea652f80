use clap::Args;

use crate::context::{Code, Context};
use crate::endpoint;
use crate::failure::Usage;

/// Draws new keys for this replica, without pairing again.
///
/// It goes on under another id, with the same mail and the same UIDs. Run `postmerge sync` or `serve` afterwards: peers hear
/// of it when this replica speaks to them. While they have not, they cannot reach it themselves.
#[derive(Args)]
pub(crate) struct Rotate {
    /// Keeps the endpoint's key, which other accounts on the same port use too.
    #[arg(long)]
    keep_endpoint: bool,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Rotate {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        if cx.serving.is_some() {
            return Err(Usage(
                "keys cannot be changed while `postmerge serve` uses them; stop it first".into(),
            )
            .into());
        }
        let store = &cx.setup.store;
        let old = endpoint::read_key(store)?.peer_id();
        if self.dry_run {
            let keys = if self.keep_endpoint { "a new key" } else { "new keys" };
            writeln!(cx.out, "would draw {keys} for replica {}", cx.replica.id()?)?;
            return Ok(Code::DONE);
        }
        let endpoint = if self.keep_endpoint {
            old
        } else {
            let key = endpoint::new_key()?;
            endpoint::write_next_key(store, &key)?;
            key.peer_id()
        };
        let replica = cx.replica.rotate(endpoint)?;
        endpoint::take_next_key(store, &cx.replica)?;
        writeln!(
            cx.err,
            "this replica is {replica} now; peers hear of it when it speaks to them: `postmerge sync`"
        )?;
        Ok(Code::DONE)
    }
}
