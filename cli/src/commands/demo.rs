use crate::context::Code;
use crate::paths::Setup;
use clap::Args;
/// x
#[derive(Args)]
pub(crate) struct Demo {
    /// Prints the facts as JSON.
    #[arg(long)]
    json: bool,
}
impl Demo {
    pub(crate) fn run(&self, _setup: &Setup) -> anyhow::Result<Code> {
        let _ = self.json;
        Ok(Code::DONE)
    }
}
