//! What the daemon does by itself, slowly: bodies of expunged messages go, and their space is given back.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use postmerge::replica::{Compaction, Replica, ReplicaError};

use crate::config::Current;

/// Forgetting counts time, so it must be called a few times a day; an hour of it costs nothing.
const EVERY: Duration = Duration::from_secs(3600);
/// A daemon that has just started has better things to do.
const FIRST: Duration = Duration::from_secs(60);
/// A compaction reads so much at once, and pauses so long that its rate is 4 MiB a second: a twentieth of what a slow disk
/// does, and a segment takes a quarter of a minute.
const STEP: u64 = 256 << 10;
const PAUSE: Duration = Duration::from_millis(62);

/// The threads of one replica; they end when this is stopped.
pub(crate) struct Upkeep {
    bell: Bell,
    threads: Vec<JoinHandle<()>>,
}

/// Ends every wait at once.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// Waits, and says whether to go on.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let (rung, bell) = &*self.0;
        let rung = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(rung, time, |rung| !*rung);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn ring(&self) {
        let (rung, bell) = &*self.0;
        *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
    }
}

impl Upkeep {
    pub(crate) fn start(replica: &Replica, config: &Current) -> Upkeep {
        let bell = Bell::default();
        let forgetting = {
            let (replica, config, bell) = (replica.clone(), config.clone(), bell.clone());
            std::thread::spawn(move || forget(&replica, &config, &bell))
        };
        Upkeep { bell, threads: vec![forgetting] }
    }

    pub(crate) fn stop(self) {
        self.bell.ring();
        for thread in self.threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn forget(replica: &Replica, config: &Current, bell: &Bell) {
    let mut wait = FIRST;
    // What an earlier process left undone.
    let mut compacts = true;
    while bell.wait(wait) {
        wait = EVERY;
        let keep = config.now().keep_expunged.0;
        let done = replica.forget_bodies(keep).and_then(|forgotten| {
            if forgotten.bodies > 0 {
                let (bodies, bytes) = (forgotten.bodies, forgotten.bytes);
                tracing::info!(bodies, bytes, "forgot the bodies of expunged messages");
            }
            compacts |= forgotten.bodies > 0;
            if std::mem::take(&mut compacts) { compact(replica, bell) } else { Ok(()) }
        });
        if let Err(error) = done {
            tracing::error!(%error, "cannot forget the bodies of expunged messages");
        }
    }
}

fn compact(replica: &Replica, bell: &Bell) -> Result<(), ReplicaError> {
    let mut compaction: Compaction = replica.plan_compaction()?;
    let mut freed = 0;
    while !compaction.is_done() && bell.wait(PAUSE) {
        freed += replica.compact(&mut compaction, STEP)?.freed;
    }
    if freed > 0 {
        tracing::info!(freed, "gave the space of forgotten bodies back");
    }
    Ok(())
}
