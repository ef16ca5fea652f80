//! The replicas that mail clients open: those that the daemon hosts, and others, which are open while somebody uses them.
//!
//! To open or close a replica takes as long as its disk does. It keeps those waiting who want the same one, and nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use postmerge::replica::{Replica, ReplicaError, Subscription};
use postmerge_imap::auth::User;
use postmerge_imap::{Account, Indexer};

/// How long an account that nobody uses stays open: mail clients come back within minutes.
pub(crate) const KEEP_OPEN: Duration = Duration::from_secs(5 * 60);

/// Opens the replica in a directory.
type Opener = dyn Fn(&Path) -> Result<Replica, ReplicaError> + Send + Sync;

/// A store that somebody asked for; nothing in it while it is closed. Held while it is opened or closed.
type Slot = Arc<Mutex<Option<Open>>>;

/// The replicas of this process by directory.
pub(crate) struct Accounts {
    opener: Box<Opener>,
    /// Held for look-ups only, and never while a slot is waited for.
    slots: Mutex<BTreeMap<PathBuf, Slot>>,
}

struct Open {
    account: Account,
    /// Whether the daemon holds it anyway.
    hosted: bool,
    used: Instant,
    _indexing: Indexing,
}

impl Open {
    fn new(replica: Replica, hosted: bool) -> std::io::Result<Open> {
        let account = Account::new(replica);
        let indexing = Indexing::start(account.replica())?;
        Ok(Open { account, hosted, used: now(), _indexing: indexing })
    }
}

impl Accounts {
    /// Has those that are `hosted`; others are opened by `opener` when they are asked for.
    pub(crate) fn new(
        hosted: impl Iterator<Item = (PathBuf, Replica)>,
        opener: impl Fn(&Path) -> Result<Replica, ReplicaError> + Send + Sync + 'static,
    ) -> std::io::Result<Accounts> {
        let mut slots = BTreeMap::new();
        for (store, replica) in hosted {
            let open = Open::new(replica, true)?;
            slots.insert(store.canonicalize()?, Arc::new(Mutex::new(Some(open))));
        }
        Ok(Accounts { opener: Box::new(opener), slots: Mutex::new(slots) })
    }

    /// The account of a user, opened if it is not open; the error is for the log.
    pub(crate) fn open(&self, user: &User) -> Result<Account, String> {
        let store = user.replica().canonicalize().map_err(|error| {
            format!("the replica of {}, {}: {error}", user.name().as_str(), user.replica().display())
        })?;
        let slot = self.slots().entry(store.clone()).or_default().clone();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.as_mut() {
            open.used = now();
            return Ok(open.account.clone());
        }
        let replica = (self.opener)(&store).map_err(|error| error.to_string())?;
        let open = Open::new(replica, false).map_err(|error| error.to_string())?;
        Ok(slot.insert(open).account.clone())
    }

    /// Closes what nobody has used for a while, or all that is not the daemon's.
    pub(crate) fn close_unused(&self, all: bool) {
        let slots: Vec<(PathBuf, Slot)> =
            self.slots().iter().map(|(store, slot)| (store.clone(), slot.clone())).collect();
        for (store, slot) in slots {
            let mut open = match slot.try_lock() {
                Ok(open) => open,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Somebody opens it just now.
                Err(TryLockError::WouldBlock) if !all => continue,
                Err(TryLockError::WouldBlock) => slot.lock().unwrap_or_else(PoisonError::into_inner),
            };
            close(&store, &mut open, all);
            let closed = open.is_none();
            drop(open);
            let mut slots = self.slots();
            // The map and this function hold it, and nobody else who may be about to put something into it.
            if closed && Arc::strong_count(&slot) == 2 {
                slots.remove(&store);
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a replica that is not in use, or in any case.
fn close(store: &Path, slot: &mut Option<Open>, all: bool) {
    let Some(open) = slot.as_mut() else { return };
    if open.account.is_shared() {
        open.used = now();
    }
    if open.hosted || !(all || open.used.elapsed() > KEEP_OPEN) {
        return;
    }
    if let Err(error) = open.account.replica().close() {
        tracing::error!(store = %store.display(), %error, "cannot close an account");
    }
    *slot = None;
}

fn now() -> Instant {
    Instant::now()
}

/// A thread that makes summaries of what arrives, so that no client has to wait for them. It ends with the subscription.
struct Indexing {
    _subscription: Subscription,
}

impl Indexing {
    fn start(replica: &Replica) -> std::io::Result<Indexing> {
        // One commit that waits is as good as many.
        let (wake, woken) = sync_channel(1);
        let _ = wake.try_send(());
        let subscription = replica.subscribe(move |_| {
            let _ = wake.try_send(());
        });
        let replica = replica.clone();
        std::thread::Builder::new().name("index".into()).spawn(move || index(&replica, &woken))?;
        Ok(Indexing { _subscription: subscription })
    }
}

fn index(replica: &Replica, woken: &Receiver<()>) {
    let mut indexer = Indexer::default();
    while woken.recv().is_ok() {
        loop {
            match indexer.step(replica) {
                Ok(true) => {}
                Ok(false) => return,
                // A server that was never synced, say.
                Err(error) => {
                    tracing::debug!(%error, "nothing can be summarised now");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use postmerge::member::{MemberName, Role, SecretKey};
    use postmerge::replica::Founding;
    use postmerge::uid::Block;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A user with a store of the same name.
    fn user(dir: &Path, name: &str) -> User {
        let endpoint = SecretKey::from_seed([7; 32]).peer_id();
        let member = MemberName::new(name).unwrap();
        let founding = Founding { role: Role::Server, name: member, block: Block::STANDARD, endpoint };
        let store = dir.join(name);
        Replica::found(&store, None, &founding).unwrap().close().unwrap();
        User::new(name.parse().unwrap(), store.to_str().unwrap()).unwrap()
    }

    #[test]
    fn a_slow_disk_keeps_only_those_waiting_who_need_it() {
        let dir = tempfile::tempdir().unwrap();
        let (slow, quick) = (user(dir.path(), "slow"), user(dir.path(), "quick"));
        let (begun, begins) = channel();
        let (go_on, waits) = channel::<()>();
        let waits = Mutex::new(waits);
        let accounts = Accounts::new(std::iter::empty(), move |store| {
            if store.ends_with("slow") {
                begun.send(()).unwrap();
                waits.lock().unwrap().recv().unwrap();
            }
            Replica::open(store, None)
        });
        let accounts = Arc::new(accounts.unwrap());
        let open = |user: &User| {
            let (accounts, user, (done, opened)) = (accounts.clone(), user.clone(), channel());
            std::thread::spawn(move || {
                let _ = done.send(accounts.open(&user).map(|account| account.replica().id().unwrap()));
            });
            opened
        };
        let first = open(&slow);
        begins.recv_timeout(PATIENCE).unwrap();
        let second = open(&slow);
        assert!(open(&quick).recv_timeout(PATIENCE).expect("it waits for the other store").is_ok());
        accounts.close_unused(false);
        go_on.send(()).unwrap();
        let ids = [first, second].map(|opened| opened.recv_timeout(PATIENCE).unwrap().unwrap());
        assert_eq!(ids[0], ids[1], "two sessions of one store share it");
        assert!(begins.try_recv().is_err(), "it was opened twice");
        accounts.close_unused(true);
        assert!(accounts.slots().is_empty());
    }

    #[test]
    fn what_cannot_be_opened_is_forgotten_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let user = user(dir.path(), "kim");
        let accounts = Accounts::new(std::iter::empty(), |store| Replica::open(store, None)).unwrap();
        let held = Replica::open(user.replica(), None).unwrap();
        assert!(accounts.open(&user).is_err(), "somebody else has it");
        accounts.close_unused(false);
        assert!(accounts.slots().is_empty());
        held.close().unwrap();
        drop(held);
        let account = accounts.open(&user).unwrap();
        accounts.close_unused(false);
        assert_eq!(accounts.slots().len(), 1, "it is in use");
        drop(account);
    }
}
