//! One replica of an account: the face that a mail client embeds.
//!
//! A [`Replica`] is one directory. Its methods take `&self`, may be called from several threads and block: a method that
//! writes returns once what it wrote is durable. Reads see the last commit. Nothing is printed, no environment is read,
//! and nothing is global.

mod body;
mod compacting;
mod contacts;
mod core;
mod elders;
mod entries;
mod forgetting;
mod history;
mod identity;
mod import;
mod inspect;
mod link;
mod members;
mod ops;
mod owed;
mod read;
mod record;
mod scrubbing;
mod signatures;
#[cfg(test)]
mod simulation;
mod snapshot;
mod summaries;
mod survey;
mod undo;
mod verifying;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::blob::BlobId;
use crate::mailbox::{AccountId, DocumentError, EntryId, MailboxId, MailboxName, ReplicaId, Uid};
use crate::member::{
    Body, MemberError, MemberName, Members, Overstep, PeerId, Record, RecordError, Role, SecretKey, Ticket,
    TicketError,
};
use crate::mutation::{Mutation, planted};
use crate::store::{Handle, Progress, Store, StoreError};
use crate::sync::Join;
use crate::uid::{AccountError, Block, Event, TableError};

pub use compacting::{Compacted, Compaction};
pub use contacts::Contact;
pub use entries::{Adopted, Adoption};
pub use forgetting::{Blocker, Forgotten, Retention};
pub use history::{Act, Conflicts, Decision, Deed, Happened, Kind, Story, Told};
pub use import::{ImportMessage, ImportReport, Importer, Unmet};
pub use link::{Link, LinkError, LinkEvent, Stay};
pub use members::{Invitation, Peer};
pub use ops::{Added, Appended, NewMessage, Relocated, RelocatedMessage, Stored, StoredMessage};
pub use read::Status;
pub use scrubbing::{ScrubPass, ScrubState};
pub use snapshot::Snapshot;
pub use undo::Selection;
pub use verifying::{MailboxVerdict, Unverified, Verdict, Verification};

use self::contacts::Contacts;
use self::core::{Core, Standing};
use self::elders::Elders;
use self::forgetting::Forgetting;
use self::identity::{Identity, Watch};
use self::owed::Notices;
use self::scrubbing::Scrubs;
use self::verifying::Verifications;

/// Why a replica could not do something.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// There is no replica in the directory.
    #[error("there is no replica in {path}", path = path.display())]
    NoReplica {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file that says who the replica is, is damaged.
    #[error("{path} is not a replica's identity; restore it from a backup, or join the account again", path = path.display())]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// The membership log is damaged.
    #[error("{path} is damaged ({what}); copy the file from a backup, or from another replica of the account", path = path.display())]
    Members {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// There is no message under the UID.
    #[error("mailbox {mailbox:?} has no message with UID {uid}")]
    NoMessage {
        /// The mailbox.
        mailbox: MailboxName,
        /// The UID.
        uid: Uid,
    },
    /// The entry is not in the account.
    #[error("there is no entry {entry}")]
    NoEntry {
        /// The entry.
        entry: EntryId,
    },
    /// The body is elsewhere yet, or nowhere.
    #[error("the body {blob} has not arrived here")]
    Owed {
        /// The body.
        blob: BlobId,
    },
    /// The reader that a body was to be taken from failed.
    #[error("the message cannot be read: {source}")]
    Source {
        /// What it said.
        source: std::io::Error,
    },
    /// The replica was made to join an account and was not let in yet.
    #[error("this replica was not let into its account yet; finish joining it first")]
    NotJoined,
    /// The role of this replica does not allow what was to be done.
    #[error("this replica's role in the account is {role}, and this {overstep}")]
    Role {
        /// Its role.
        role: Role,
        /// What it would have done.
        overstep: Overstep,
    },
    /// A mailbox cannot be read from this snapshot: messages of it wait for their UIDs.
    #[error(
        "mailbox {mailbox} cannot be shown as it is in this snapshot: messages of it wait for their UIDs"
    )]
    Unsettled {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// A server that has not heard from its inviter yet cannot claim UIDs.
    #[error(
        "this server has never synced with the replica that invited it, and cannot show UIDs before it has"
    )]
    NotReady,
    /// No member is called so.
    #[error("no peer is called {name:?}, and no replica id or endpoint starts so")]
    NoPeer {
        /// What was asked for.
        name: String,
    },
    /// Several members are called so.
    #[error("several peers are called {name:?}; name one by its replica id")]
    ManyPeers {
        /// What was asked for.
        name: String,
    },
    /// The replica itself was named where a peer is needed.
    #[error("that is this replica itself")]
    Oneself,
    /// The ticket is of no use.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The membership log refused.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A membership record is none.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operation cannot be done on this account.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DocumentError> for ReplicaError {
    fn from(error: DocumentError) -> ReplicaError {
        ReplicaError::Account(error.into())
    }
}

impl From<TableError> for ReplicaError {
    fn from(error: TableError) -> ReplicaError {
        ReplicaError::Store(error.into())
    }
}

/// What a new account's first replica is.
#[derive(Clone, Debug)]
pub struct Founding {
    /// What it does; a founder that observes lets others claim.
    pub role: Role,
    /// What people call it.
    pub name: MemberName,
    /// How many consecutive UIDs a server holds at a time.
    pub block: Block,
    /// The endpoint at which its peers reach it.
    pub endpoint: PeerId,
}

/// Called after each commit, with what clients see of it, and after bodies arrived. It runs in the thread that committed and must be quick.
type Listener = dyn Fn(&[Event]) + Send + Sync;

struct Shared {
    core: Mutex<Option<Core>>,
    handle: Handle,
    account: AccountId,
    /// Readers must not wait for the writer to learn whose UIDs they show.
    standing: Mutex<Standing>,
    listeners: Mutex<Vec<Weak<Listener>>>,
    notices: Mutex<Notices>,
    contacts: Mutex<Contacts>,
    forgetting: Forgetting,
    scrubs: Scrubs,
    verifications: Mutex<Verifications>,
    elders: Arc<Elders>,
}

/// One replica of an account, open. Clones share it.
#[derive(Clone)]
pub struct Replica(Arc<Shared>);

/// Keeps a listener; dropping it ends the calls.
pub struct Subscription {
    _listener: Arc<Listener>,
}

const MEMBERS: &str = "members";

impl Replica {
    /// Makes a new account, and its first replica in an empty or new directory. `state` is a directory outside of `dir`
    /// where a note is kept that tells a store which was copied back; without it nobody can tell.
    pub fn found(dir: &Path, state: Option<&Path>, founding: &Founding) -> Result<Replica, ReplicaError> {
        let key = SecretKey::from_seed(random()?);
        let replica = ReplicaId::from_bytes(random()?);
        let body = Body::Found {
            salt: random()?,
            block: founding.block,
            endpoint: founding.endpoint,
            name: founding.name.clone(),
            role: founding.role,
        };
        let record = Record::sign(replica, &key, &[], &body)?;
        let account = record.account().expect("a founding record names its account");
        Replica::make(dir, state, account, replica, key, vec![record])
    }

    /// Makes a replica that is to join the account of a ticket; it is a member once a conversation with the inviter, opened
    /// with [`Link::join`], has let it in. If that was cut off before, the same replica goes on.
    pub fn prepare_join(dir: &Path, state: Option<&Path>, ticket: &Ticket) -> Result<Replica, ReplicaError> {
        ticket.check(now().max(0) as u64)?;
        if dir.join("STORE").exists()
            && Identity::read(dir).is_ok_and(|known| known.account == ticket.account)
        {
            let replica = Replica::open(dir, state)?;
            return match replica.is_member()? {
                true => Err(StoreError::NotEmpty { path: dir.into() }.into()),
                false => Ok(replica),
            };
        }
        let (replica, key) = (ReplicaId::from_bytes(random()?), SecretKey::from_seed(random()?));
        Replica::make(dir, state, ticket.account, replica, key, Vec::new())
    }

    /// What this replica says of itself when it joins.
    pub fn guest(&self, ticket: &Ticket, endpoint: PeerId, name: MemberName) -> Result<Join, ReplicaError> {
        self.with(|core| {
            let (replica, key) = (core.identity.replica, core.identity.key.public());
            Ok(Join { account: ticket.account, offer: ticket.offer, replica, key, endpoint, name })
        })
    }

    /// Whether this replica belongs to its account: not before it was let in, and not after it was revoked.
    pub fn is_member(&self) -> Result<bool, ReplicaError> {
        self.with(|core| Ok(core.members.is_active(core.identity.replica)))
    }

    /// This replica's id.
    pub fn id(&self) -> Result<ReplicaId, ReplicaError> {
        self.with(|core| Ok(core.identity.replica))
    }

    fn make(
        dir: &Path,
        state: Option<&Path>,
        account: AccountId,
        replica: ReplicaId,
        key: SecretKey,
        records: Vec<Record>,
    ) -> Result<Replica, ReplicaError> {
        let store = Store::create(dir)?;
        let identity = Identity { account, replica, key, instance: store.instance(), succession: None };
        let members = Members::fold(account, records)?;
        members::write(dir, &members)?;
        // The identity comes last: without it there is no replica here.
        identity.write(dir)?;
        Replica::start(store, identity, members, state)
    }

    /// Opens the replica in a directory. After a crash it first brings the index up to date.
    pub fn open(dir: &Path, state: Option<&Path>) -> Result<Replica, ReplicaError> {
        if !dir.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: dir.into() });
        }
        let store = Store::open(dir)?;
        let identity = Identity::read(dir)?;
        let mut members = members::read(dir, identity.account)?;
        if members::finish_succession(&mut members, &identity)? {
            members::write(dir, &members)?;
        }
        Replica::start(store, identity, members, state)
    }

    /// Opens a replica to look at it: a backup, or a directory that cannot be written to. Nothing on disk is changed, a copy
    /// does not become another replica, and whatever would write is refused. What has to be decided before it can be shown
    /// (the UID of a message that was never shown) is decided in memory and forgotten: it may turn out differently later.
    ///
    /// Where the index is missing, as in a backup, or damaged, it is built in memory: some 400 bytes a message.
    pub fn open_read_only(dir: &Path) -> Result<Replica, ReplicaError> {
        if !dir.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: dir.into() });
        }
        let store = Store::open_read_only(dir)?;
        let identity = Identity::read(dir)?;
        let mut members = members::read(dir, identity.account)?;
        members::finish_succession(&mut members, &identity)?;
        Replica::start(store, identity, members, None)
    }

    fn start(
        store: Store,
        identity: Identity,
        members: Members,
        state: Option<&Path>,
    ) -> Result<Replica, ReplicaError> {
        let copied = identity.instance != store.instance();
        let watch = Watch::new(state, &identity);
        let (handle, account) = (store.handle(), identity.account);
        let mut core = Core::open(store, identity, members, watch)?;
        let known = core.store.reader()?.last_seq(core.identity.replica)?;
        let copied = copied && !core.store.is_read_only();
        let behind = copied || core.outside().is_some_and(|outside| outside.seq > known);
        if behind && !planted(Mutation::CopyUnnoticed) {
            members::succeed(&mut core)?;
        }
        let standing = Mutex::new(core.standing()?);
        let contacts = Mutex::new(Contacts::read(core.store.dir(), core.store.is_read_only()));
        let forgetting = Forgetting::read(core.store.dir());
        let scrubs = Scrubs::read(core.store.dir());
        let core = Mutex::new(Some(core));
        let (listeners, notices, elders) = (Mutex::default(), Mutex::default(), Arc::default());
        let shared = Shared {
            core,
            handle,
            account,
            standing,
            listeners,
            notices,
            contacts,
            forgetting,
            scrubs,
            verifications: Mutex::default(),
            elders,
        };
        Ok(Replica(Arc::new(shared)))
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.0.account
    }

    /// Has `listener` called while the subscription lives: after each commit, with its events, and with none after bodies
    /// arrived ([`has_body`](Replica::has_body) tells which).
    pub fn subscribe(&self, listener: impl Fn(&[Event]) + Send + Sync + 'static) -> Subscription {
        let listener: Arc<Listener> = Arc::new(listener);
        let mut listeners = lock(&self.0.listeners);
        listeners.retain(|one| one.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        Subscription { _listener: listener }
    }

    fn tell(&self, events: &[Event]) {
        self.0.elders.news();
        let listeners: Vec<_> = lock(&self.0.listeners).iter().filter_map(Weak::upgrade).collect();
        listeners.iter().for_each(|listener| listener(events));
    }

    /// Writes what is cheaper to load next time, and makes the index durable. Afterwards every clone fails. A replica
    /// that is dropped without it loses nothing.
    pub fn close(&self) -> Result<(), ReplicaError> {
        lock(&self.0.contacts).close();
        match lock(&self.0.core).take() {
            Some(core) => core.close(),
            None => Ok(()),
        }
    }

    /// Copies a consistent state of the store into a directory that is empty or an earlier backup. Who opens the copy goes on
    /// as another replica, with new UIDVALIDITYs; [`Replica::open_read_only`] only looks at it. The replica can be used
    /// meanwhile.
    pub fn backup(&self, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(), ReplicaError> {
        let (source, replica, identity, members) = self.with(|core| {
            let source = core.store.backup_source()?;
            Ok((source, core.identity.replica, core.identity.text(), core.members.clone()))
        })?;
        // A copy that was opened has a life of its own, with changes that are nowhere else.
        if Identity::read(to).is_ok_and(|found| found.replica != replica) {
            return Err(StoreError::NotEmpty { path: to.into() }.into());
        }
        source.copy(to, progress)?;
        Identity::write_text(to, &identity)?;
        members::write(to, &members)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Core) -> Result<R, ReplicaError>) -> Result<R, ReplicaError> {
        match lock(&self.0.core).as_mut() {
            Some(core) => {
                let result = act(core);
                if matches!(self.standing(), Standing::Outsider | Standing::Waiting)
                    && let Ok(standing) = core.standing()
                {
                    *lock(&self.0.standing) = standing;
                }
                result
            }
            None => Err(ReplicaError::Store(StoreError::Poisoned)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held left at most a document in memory that is dropped on any doubt.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the replica is where entropy comes in")]
fn random<const N: usize>() -> Result<[u8; N], ReplicaError> {
    let mut bytes = [0; N];
    #[cfg(test)]
    if simulation::draw(&mut bytes) {
        return Ok(bytes);
    }
    getrandom::fill(&mut bytes).map_err(|error| ReplicaError::Random(error.to_string()))?;
    Ok(bytes)
}

/// Seconds since 1970: when a change was made, for people to read. Nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "the replica is where the time comes in")]
fn now() -> i64 {
    #[cfg(test)]
    if let Some(time) = simulation::time() {
        return time;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
