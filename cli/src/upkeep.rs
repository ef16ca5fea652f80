//! What the daemon does by itself, slowly: bodies of expunged messages go, their space is given back, and all others are read
//! again.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use postmerge::replica::{Compaction, Replica, ReplicaError};

use crate::config::{Config, Current};

/// Forgetting counts time, so it must be called a few times a day; an hour of it costs nothing.
const EVERY: Duration = Duration::from_secs(3600);
/// A daemon that has just started has better things to do.
const FIRST: Duration = Duration::from_secs(60);
/// A compaction reads so much at once, and pauses so long that its rate is 4 MiB a second: a twentieth of what a slow disk
/// does, and a segment takes a quarter of a minute.
const STEP: u64 = 256 << 10;
const PAUSE: Duration = Duration::from_millis(62);

/// A scrub reads so much between two pauses.
const SCRUB_STEP: u64 = 256 << 10;
/// From the beginning of one pass to that of the next. Disks lose bits over months.
const WEEK: i64 = 7 * 86_400;

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
        let scrubbing = {
            let (replica, config, bell) = (replica.clone(), config.clone(), bell.clone());
            std::thread::spawn(move || scrub(&replica, &config, &bell))
        };
        Upkeep { bell, threads: vec![forgetting, scrubbing] }
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

/// One pass a week, at the rate of the configuration.
fn scrub(replica: &Replica, config: &Current, bell: &Bell) {
    let mut wait = FIRST;
    while bell.wait(wait) {
        wait = EVERY;
        let done = replica.scrub_state().and_then(|state| {
            let is_due = state.began.is_none_or(|began| now() >= began + WEEK || began > now());
            // One that was cut off goes on.
            if is_due || state.finished < state.began { pass(replica, config, bell) } else { Ok(()) }
        });
        if let Err(error) = done {
            tracing::error!(%error, "cannot scrub");
        }
    }
}

fn pass(replica: &Replica, config: &Current, bell: &Bell) -> Result<(), ReplicaError> {
    let mut pass = replica.resume_scrub();
    while !pass.is_done() {
        let rate = config.now().scrub_rate.unwrap_or(Config::SCRUB_RATE);
        if rate == 0 {
            return Ok(());
        }
        let found = replica.scrub_step(&mut pass, SCRUB_STEP.min(rate))?;
        // A large body is read as a whole, and paused for as long as it should have taken.
        if !bell.wait(Duration::from_secs_f64(found.bytes as f64 / rate as f64)) {
            return Ok(());
        }
    }
    Ok(())
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
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
