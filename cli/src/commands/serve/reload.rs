//! SIGHUP: the configuration is read again, and what can be taken up without a restart is.

use super::{Hosted, Serve};
use crate::commands::peers;
use crate::imap::Imap;
use crate::paths::Setup;
use crate::service::Notify;

/// What a reload looks at.
pub(super) struct Running<'a> {
    pub(super) setup: &'a Setup,
    pub(super) hosted: &'a [Hosted],
    pub(super) imap: Option<&'a Imap>,
    pub(super) notify: &'a Notify,
    /// What the service manager was told when all was ready.
    pub(super) status: &'a str,
}

impl Serve {
    /// Takes up what the configuration says by now. What cannot be used is reported, and then all stays as it was.
    pub(super) fn reload(&self, running: &Running<'_>) {
        running.notify.reloading();
        let outcome = match self.take_up(running) {
            Ok(waiting) if waiting.is_empty() => "read the configuration again".to_owned(),
            Ok(waiting) => {
                format!("read the configuration again; a restart takes up the new {}", waiting.join(", "))
            }
            Err(error) => {
                tracing::error!("{error:#}; keeping the configuration as it was");
                format!("the configuration cannot be used: {error}")
            }
        };
        eprintln!("{outcome}");
        running.notify.ready(&format!("{}; {outcome}", running.status));
    }

    /// Gives the keys that wait for a restart.
    fn take_up(&self, running: &Running<'_>) -> anyhow::Result<Vec<&'static str>> {
        let Running { setup, hosted, imap, .. } = running;
        let (old, new) = (setup.config.now(), setup.config.read_again()?);
        peers::check(&new.addresses)?;
        let filter = setup.events.parse(new.log.as_deref())?;
        if let Some(imap) = imap {
            imap.reload(&self.imap, &new)?;
        }
        // From here on nothing is refused.
        setup.events.say(filter);
        let waiting = old.waits_for_restart(&new);
        let moved = old.addresses != new.addresses;
        setup.config.replace(new);
        for hosted in hosted.iter().filter(|_| moved && !self.offline) {
            if let Err(error) = self.announce(&hosted.setup, &hosted.replica) {
                tracing::error!(store = %hosted.setup.store.display(), "the peers are not told where it is: {error:#}");
            }
        }
        Ok(waiting)
    }
}
