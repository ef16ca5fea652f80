//! Events go to standard error; this says which of them.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::commands::Command;

/// Which events are said. The environment counts more than `-v`, and that more than the configuration.
#[derive(Clone)]
pub(crate) struct Events {
    /// What is said where the configuration says nothing; nothing if that does not count.
    default: Option<String>,
    replace: Arc<dyn Fn(EnvFilter) + Send + Sync>,
}

impl Events {
    /// Says them from now on: plain lines, with colours on a terminal only.
    pub(crate) fn start(cli: &Cli) -> Events {
        let level = ["warn", "info", "debug", "trace"][usize::from(cli.verbose).min(3)];
        let default = format!("error,postmerge={level}");
        let asked = EnvFilter::try_from_env("POSTMERGE_LOG").ok();
        let fixed = asked.is_some() || cli.verbose > 0;
        // https://no-color.org: any value but an empty one.
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let events = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_env_filter(asked.unwrap_or_else(|| EnvFilter::new(&default)))
            .with_ansi(colours && std::io::stderr().is_terminal());
        let mut replace: Arc<dyn Fn(EnvFilter) + Send + Sync> = Arc::new(|_| {});
        match cli.command {
            // A log that is read later.
            Command::Serve(_) => {
                let events = events.with_filter_reloading();
                let handle = events.reload_handle();
                replace = Arc::new(move |filter| drop(handle.reload(filter)));
                events.init();
            }
            // Somebody waits for the command; when it was and which module said so is noise unless asked for.
            _ if cli.verbose == 0 => events.without_time().with_target(false).init(),
            _ => events.init(),
        }
        Events { default: (!fixed).then_some(default), replace }
    }

    /// Reads what the configuration says of them.
    pub(crate) fn parse(&self, configured: Option<&str>) -> anyhow::Result<Filter> {
        let text = configured.or(self.default.as_deref()).unwrap_or_default();
        let filter = text.parse().with_context(|| format!("log = {text:?} names no events"))?;
        Ok(Filter(filter))
    }

    /// Says those from now on, unless the command line or the environment named others.
    pub(crate) fn say(&self, filter: Filter) {
        if self.default.is_some() {
            (self.replace)(filter.0);
        }
    }
}

/// Which events the configuration names.
pub(crate) struct Filter(EnvFilter);
