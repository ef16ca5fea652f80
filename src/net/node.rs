//! A replica's conversations over the network: who is dialled, who is answered, and when it is tried again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

use super::{Backoff, Connection, Endpoint, NetError, Reader, Writer};
use crate::mailbox::ReplicaId;
use crate::member::{Member, MemberName, Status, Ticket};
use crate::replica::{Link, LinkError, LinkEvent, Replica, ReplicaError, Stay, Subscription};
use crate::sync::{PIECE, Side};

/// A write that makes no progress for this long means a peer that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pieces that wait for the network; the session then holds back, and a change is never behind more than these.
const QUEUE: usize = 4;

/// Why a conversation did not come about, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The conversation.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// Nobody knows where the peer is.
    #[error("no address of {name} is known", name = .0)]
    NoAddress(MemberName),
    /// The peer went away before all was said.
    #[error("the peer closed the connection before all was said")]
    Cut,
}

/// How a peer is, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// The peer.
    pub replica: ReplicaId,
    /// Whether there is a conversation now.
    pub connected: bool,
    /// Why the last one ended, if badly.
    pub error: Option<String>,
}

/// What came of one sync.
#[derive(Debug)]
pub struct SyncResult {
    /// With whom.
    pub member: Member,
    /// Whether both have the same now.
    pub result: Result<(), NodeError>,
}

struct Inner {
    replica: Replica,
    endpoint: Endpoint,
    commits: watch::Sender<u64>,
    peers: Mutex<BTreeMap<ReplicaId, PeerState>>,
    _subscription: Subscription,
}

/// One replica's conversations. Needs a multi-threaded tokio runtime, since a replica blocks. Clones share it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    /// Brings a replica and an endpoint together. Nothing happens yet.
    pub fn new(replica: Replica, endpoint: Endpoint) -> Node {
        let (commits, _) = watch::channel(0);
        let told = commits.clone();
        let subscription = replica.subscribe(move |_| told.send_modify(|count| *count += 1));
        Node(Arc::new(Inner {
            replica,
            endpoint,
            commits,
            peers: Mutex::default(),
            _subscription: subscription,
        }))
    }

    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// How the peers are that were talked to.
    pub fn states(&self) -> Vec<PeerState> {
        self.peers().values().cloned().collect()
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, PeerState>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers peers and dials those with a known address, again and again, until `stop`. Then conversations end in good
    /// order, for a few seconds at most.
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let (stopping, stopped) = watch::channel(false);
        let mut commits = self.0.commits.subscribe();
        let mut tasks = JoinSet::new();
        let mut dialled = BTreeMap::new();
        tokio::pin!(stop);
        loop {
            for member in block_in_place(|| self.members())? {
                if !member.addresses.is_empty() && !dialled.contains_key(&member.replica) {
                    dialled.insert(member.replica, ());
                    tasks.spawn(self.clone().keep_dialling(member.replica, stopped.clone()));
                }
            }
            tokio::select! {
                () = &mut stop => break,
                incoming = self.0.endpoint.accept() => match incoming {
                    Some(incoming) => {
                        let (node, stopped) = (self.clone(), stopped.clone());
                        tasks.spawn(async move {
                            match incoming.establish().await {
                                Ok(connection) => node.answer(connection, stopped).await,
                                Err(error) => tracing::debug!(%error, "a peer knocked in vain"),
                            }
                        });
                    }
                    None => break,
                },
                _ = commits.changed() => {}
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        stopping.send_replace(true);
        let _ = timeout(Duration::from_secs(3), async { while tasks.join_next().await.is_some() {} }).await;
        self.0.endpoint.close(0, "stopping");
        let _ = timeout(Duration::from_secs(1), self.0.endpoint.wait_idle()).await;
        Ok(())
    }

    fn members(&self) -> Result<Vec<Member>, ReplicaError> {
        let active = |peer: &crate::replica::Peer| peer.member.status == Status::Active && !peer.oneself;
        Ok(self.0.replica.peers()?.into_iter().filter(active).map(|peer| peer.member).collect())
    }

    fn member(&self, replica: ReplicaId) -> Result<Option<Member>, ReplicaError> {
        Ok(self.members()?.into_iter().find(|member| member.replica == replica))
    }

    fn note(&self, replica: ReplicaId, connected: bool, error: Option<String>) {
        self.peers().insert(replica, PeerState { replica, connected, error });
    }

    fn is_connected(&self, replica: ReplicaId) -> bool {
        self.peers().get(&replica).is_some_and(|state| state.connected)
    }

    /// Holds a conversation with one member for as long as it is a member and has an address.
    async fn keep_dialling(self, replica: ReplicaId, mut stopped: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        while !*stopped.borrow() {
            let wait = match block_in_place(|| self.member(replica)) {
                Ok(Some(member)) if !self.is_connected(replica) => {
                    let done = self.dial(&member, Stay::Live, stopped.clone(), &mut |_| {}).await;
                    match done {
                        Ok(()) => {
                            backoff.succeeded();
                            Duration::from_millis(200)
                        }
                        Err(error) => {
                            tracing::info!(peer = %member.name, %error, "no conversation");
                            self.note(replica, false, Some(error.to_string()));
                            backoff.failed(random())
                        }
                    }
                }
                Ok(Some(_)) => Duration::from_secs(1),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the replica failed");
                    backoff.failed(random())
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    async fn dial(
        &self,
        member: &Member,
        stay: Stay,
        stopped: watch::Receiver<bool>,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        if member.addresses.is_empty() {
            return Err(NodeError::NoAddress(member.name.clone()));
        }
        let connection = self.0.endpoint.connect_any(member.endpoint, &member.addresses).await?;
        let (peer, binding) = (connection.peer, connection.binding);
        // Before the link looks at the heads, or a commit in between would wake nobody.
        let commits = self.0.commits.subscribe();
        let link = block_in_place(|| {
            Link::initiate(&self.0.replica, member.replica, peer, binding, stay, Duration::ZERO)
        })?;
        let talk = Talk { link, commits, stopped };
        self.track(member.replica, talk.run(connection, progress)).await
    }

    async fn track(
        &self,
        replica: ReplicaId,
        talk: impl Future<Output = Result<(), NodeError>>,
    ) -> Result<(), NodeError> {
        self.note(replica, true, None);
        let result = talk.await;
        self.note(replica, false, result.as_ref().err().map(ToString::to_string));
        result
    }

    async fn answer(&self, connection: Connection, stopped: watch::Receiver<bool>) {
        let link = Link::respond(&self.0.replica, connection.binding, connection.peer, Duration::ZERO);
        let talk = Talk { link, commits: self.0.commits.subscribe(), stopped };
        let (node, mut who) = (self.clone(), None);
        let result = talk
            .run(connection, &mut |event| {
                if let LinkEvent::Accepted { peer, .. } = event {
                    who = Some(*peer);
                    node.note(*peer, true, None);
                }
            })
            .await;
        if let Err(error) = &result {
            tracing::info!(%error, "a conversation ended badly");
        }
        if let Some(peer) = who {
            self.note(peer, false, result.err().map(|error| error.to_string()));
        }
    }

    /// Exchanges everything once with each member that has an address, one after another.
    pub async fn sync(&self, progress: &mut (dyn FnMut(&Member, &LinkEvent) + Send)) -> Vec<SyncResult> {
        let members = match block_in_place(|| self.members()) {
            Ok(members) => members,
            Err(error) => {
                tracing::error!(%error, "the members cannot be read");
                Vec::new()
            }
        };
        let mut results = Vec::new();
        for member in members.into_iter().filter(|member| !member.addresses.is_empty()) {
            let (_never, stopped) = watch::channel(false);
            let result = self.dial(&member, Stay::Once, stopped, &mut |event| progress(&member, event)).await;
            results.push(SyncResult { member, result });
        }
        results
    }

    /// Joins with a ticket: pairs, then exchanges everything once; without `bodies` all but those.
    pub async fn join(
        &self,
        ticket: &Ticket,
        name: MemberName,
        bodies: bool,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let endpoint = &self.0.endpoint;
        let guest = block_in_place(|| self.0.replica.guest(ticket, endpoint.id(), name))?;
        let connection = endpoint.connect_any(ticket.endpoint, &ticket.addresses).await?;
        let mut link = block_in_place(|| {
            Link::join(&self.0.replica, ticket, &guest, connection.binding, Stay::Once, Duration::ZERO)
        })?;
        if !bodies {
            link.leave_bodies();
        }
        let (_never, stopped) = watch::channel(false);
        let talk = Talk { link, commits: self.0.commits.subscribe(), stopped };
        self.track(ticket.inviter, talk.run(connection, progress)).await
    }
}

/// Talks over any connection, such as a pair of pipes: the initiator once, a responder for as long as the other side likes.
pub async fn talk(
    replica: &Replica,
    peer: Option<ReplicaId>,
    connection: Connection,
    progress: &mut (dyn FnMut(&LinkEvent) + Send),
) -> Result<(), NodeError> {
    let (commits, _) = watch::channel(0);
    let told = commits.clone();
    let _subscription = replica.subscribe(move |_| told.send_modify(|count| *count += 1));
    let (endpoint, binding) = (connection.peer, connection.binding);
    let link = match (connection.side, peer) {
        (Side::Initiator, Some(peer)) => {
            block_in_place(|| Link::initiate(replica, peer, endpoint, binding, Stay::Once, Duration::ZERO))?
        }
        _ => Link::respond(replica, binding, endpoint, Duration::ZERO),
    };
    let (_never, stopped) = watch::channel(false);
    Talk { link, commits: commits.subscribe(), stopped }.run(connection, progress).await
}

/// Jitter needs no secrecy, and a failing source of randomness must not stop a reconnect.
#[expect(clippy::disallowed_methods, reason = "the network needs jitter")]
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The pump of one conversation.
struct Talk {
    link: Link,
    commits: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
}

impl Talk {
    async fn run(
        mut self,
        connection: Connection,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let Connection { mut reader, writer, link: mut line, .. } = connection;
        let (queue, pieces) = mpsc::channel(QUEUE);
        let writing = tokio::spawn(write(writer, pieces));
        let mut queue = Some(queue);
        let result = self.pump(&mut reader, &mut line, &mut queue, progress).await;
        // What the peer is told of a failure still has to go out.
        while let Some(queue) = &queue
            && let Ok(Some(bytes)) = block_in_place(|| self.link.poll_send(PIECE))
        {
            if queue.send(bytes).await.is_err() {
                break;
            }
        }
        drop(queue);
        let written = writing.await.unwrap_or(Err(NodeError::Cut));
        line.close(0, "done");
        result.and(written)
    }

    #[expect(clippy::disallowed_methods, reason = "the pump brings the time")]
    async fn pump(
        &mut self,
        reader: &mut Reader,
        line: &mut super::Link,
        queue: &mut Option<mpsc::Sender<Vec<u8>>>,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let start = Instant::now();
        let mut buffer = vec![0; PIECE];
        let (mut waiting, mut leaving): (Option<Vec<u8>>, bool) = (None, false);
        loop {
            while let Some(event) = self.link.poll_event() {
                if let LinkEvent::Accepted { .. } = event {
                    line.admit();
                }
                progress(&event);
            }
            if waiting.is_none() {
                waiting = block_in_place(|| self.link.poll_send(PIECE))?;
            }
            if waiting.is_none() && self.link.has_said_all() {
                // The stream ends with the goodbye: its end is acknowledged by the time the peer has answered.
                *queue = None;
            }
            if waiting.is_none() && self.link.is_finished() {
                return Ok(());
            }
            let reserve = async {
                match &*queue {
                    Some(queue) => queue.reserve().await.ok(),
                    None => None,
                }
            };
            let now = start.elapsed();
            let deadline = self.link.poll_timeout().map(|at| at.saturating_sub(now));
            tokio::select! {
                permit = reserve, if waiting.is_some() => {
                    let permit = permit.ok_or(NodeError::Cut)?;
                    permit.send(waiting.take().expect("there is a piece"));
                }
                read = reader.read(&mut buffer), if self.link.wants_input() => {
                    let count = read?;
                    if count == 0 {
                        return Err(NodeError::Cut);
                    }
                    let now = start.elapsed();
                    block_in_place(|| self.link.receive(&buffer[..count], now))?;
                }
                changed = self.commits.changed() => {
                    changed.map_err(|_| NodeError::Cut)?;
                    block_in_place(|| self.link.wake(now))?;
                }
                () = sleep(deadline.unwrap_or(Duration::MAX)), if deadline.is_some() => {
                    let now = start.elapsed();
                    block_in_place(|| self.link.handle_timeout(now))?;
                }
                _ = self.stopped.changed(), if !leaving => {
                    leaving = true;
                    self.link.bye();
                }
            }
        }
    }
}

async fn write(mut writer: Writer, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<(), NodeError> {
    while let Some(piece) = pieces.recv().await {
        match timeout(WRITE_TIMEOUT, writer.write_all(&piece)).await {
            Ok(written) => written?,
            Err(_) => return Err(NetError::Timeout.into()),
        }
    }
    writer.finish().await;
    Ok(())
}
