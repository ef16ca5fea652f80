//! One server of the demo: its replica, its conversations, its caching client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use postmerge::mailbox::{EntryId, MailboxId};
use postmerge::member::SecretKey;
use postmerge::net::{Endpoint, Node, NodeError};
use postmerge::replica::{Replica, Subscription};
use postmerge::uid::{Burn, Event};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{self, Caching, Told, View};

/// UIDs that were burned here, whose they were and why.
pub(super) type Burned = BTreeMap<(MailboxId, u32), (EntryId, Burn)>;

/// Conversations under way: the way to stop them, and their end.
type Running = (oneshot::Sender<()>, JoinHandle<Result<(), NodeError>>);

pub(super) struct Side {
    pub(super) replica: Replica,
    key: SecretKey,
    burned: Arc<Mutex<Burned>>,
    _subscription: Subscription,
    running: Option<Running>,
    client: Caching,
    /// What the client saw last.
    pub(super) seen: View,
}

impl Side {
    pub(super) fn new(replica: Replica, key: SecretKey) -> Side {
        let burned = Arc::new(Mutex::new(Burned::new()));
        let noted = Arc::clone(&burned);
        let subscription = replica.subscribe(move |events| {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                if let Event::Burned { mailbox, uid, entry: Some(entry), rule } = event {
                    noted.entry((*mailbox, uid.value())).or_insert((*entry, *rule));
                }
            }
        });
        let client = Caching::default();
        Side { replica, key, burned, _subscription: subscription, running: None, client, seen: View::new() }
    }

    /// A socket on loopback, with any port.
    pub(super) fn bind(key: &SecretKey, runtime: &Handle) -> anyhow::Result<Endpoint> {
        let any = "127.0.0.1:0".parse().expect("an address");
        Ok(Endpoint::bind(any, key, runtime)?)
    }

    /// Talks to its peers from now on; says where it listens.
    pub(super) fn connect(&mut self, runtime: &Handle) -> anyhow::Result<String> {
        let endpoint = Side::bind(&self.key, runtime)?;
        let address = endpoint.local_address()?.to_string();
        let node = Node::new(self.replica.clone(), endpoint);
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(async move { node.serve(async { _ = stopped.await }).await });
        self.running = Some((stop, task));
        Ok(address)
    }

    /// Talks to nobody any more.
    pub(super) fn disconnect(&mut self, runtime: &Handle) -> anyhow::Result<()> {
        if let Some((stop, task)) = self.running.take() {
            let _ = stop.send(());
            runtime.block_on(task)??;
        }
        Ok(())
    }

    /// Its client looks: a server that is read gives UIDs, and cannot take them back.
    pub(super) fn read(&mut self) -> anyhow::Result<Vec<Told>> {
        self.seen = client::look(&self.replica)?;
        Ok(self.client.poll(&self.seen))
    }

    pub(super) fn broken(&self) -> &[client::Broken] {
        &self.client.broken
    }

    pub(super) fn burned(&self) -> Burned {
        self.burned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes a directory's replica, its key drawn first.
pub(super) fn found(dir: &Path, name: &str) -> anyhow::Result<Side> {
    use postmerge::member::{MemberName, Role};
    use postmerge::replica::Founding;
    use postmerge::uid::Block;
    let key = crate::endpoint::new_key()?;
    let (name, endpoint) = (MemberName::new(name)?, key.peer_id());
    let founding = Founding { role: Role::Server, name, block: Block::STANDARD, endpoint };
    Ok(Side::new(Replica::found(dir, None, &founding)?, key))
}
