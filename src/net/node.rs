//! A replica's conversations over the network: who is dialled, who is answered, and when it is tried again.

mod places;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{sleep, sleep_until, timeout};

use self::places::{Dialling, Host, Places};
use super::port::serve;
use super::{Backoff, Connection, Endpoint, NetError, Reader, Traffic, Writer};
use crate::mailbox::ReplicaId;
use crate::member::{Member, MemberName, Status, Ticket};
use crate::replica::{Link, LinkError, LinkEvent, Replica, ReplicaError, Stay, Subscription};
use crate::sync::{PIECE, Refusal, SessionError, Side};

/// A write that makes no progress for this long means a peer that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Without any news for this long nobody waits for a conversation any more: as [`LinkError::Still`] says.
const STILL: Duration = Duration::from_secs(90);
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
    /// Another conversation with the same peer goes on.
    #[error("another conversation with the peer goes on in the place of this one")]
    Replaced,
}

impl NodeError {
    /// Both sides keep the same of two conversations; whichever ends the other first says so.
    fn means_replaced(&self) -> bool {
        let refusal = match self {
            NodeError::Replaced => return true,
            NodeError::Link(LinkError::Refused { fault }) => fault.refusal,
            NodeError::Link(LinkError::Session(SessionError::Refused { refusal, .. })) => *refusal,
            _ => return false,
        };
        refusal == Refusal::Replaced
    }
}

/// How a peer is, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// The peer.
    pub replica: ReplicaId,
    /// Whether there is a conversation now.
    pub connected: bool,
    /// Since when that is so: the beginning of this conversation, or the end of the last one, if there was one.
    pub since: Option<Instant>,
    /// What went over the wire with it since this node was made, by the connections on which it proved who it is.
    pub traffic: Traffic,
    /// Whether, in that conversation, both are known to have the same, and neither waits for a body that the other has.
    pub in_sync: bool,
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
    places: Places,
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
            places: Places::default(),
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

    /// How the peers are that were talked to. Waits for a commit that is under way.
    pub fn states(&self) -> Vec<PeerState> {
        self.0.places.states(self.0.replica.digest().ok())
    }

    /// Answers peers and dials those with a known address, again and again, until `stop`. Then conversations end in good
    /// order, for a few seconds at most.
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        serve(&self.0.endpoint, std::slice::from_ref(self), stop).await
    }

    /// Dials members with a known address, those too that become known, until `stopped`.
    pub(super) async fn keep_in_touch(self, mut stopped: watch::Receiver<bool>) -> Result<(), NodeError> {
        let mut commits = self.0.commits.subscribe();
        let mut tasks = JoinSet::new();
        let mut dialled = BTreeSet::new();
        while !*stopped.borrow() {
            for member in block_in_place(|| self.members())? {
                if !member.addresses.is_empty() && dialled.insert(member.replica) {
                    tasks.spawn(self.clone().keep_dialling(member.replica, stopped.clone()));
                }
            }
            tokio::select! {
                _ = stopped.changed() => {}
                _ = commits.changed() => {}
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    fn members(&self) -> Result<Vec<Member>, ReplicaError> {
        let active = |peer: &crate::replica::Peer| peer.member.status == Status::Active && !peer.oneself;
        Ok(self.0.replica.peers()?.into_iter().filter(active).map(|peer| peer.member).collect())
    }

    fn member(&self, replica: ReplicaId) -> Result<Option<Member>, ReplicaError> {
        Ok(self.members()?.into_iter().find(|member| member.replica == replica))
    }

    /// Holds a conversation with one member for as long as it is a member and has an address.
    async fn keep_dialling(self, replica: ReplicaId, mut stopped: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        while !*stopped.borrow() {
            let wait = match block_in_place(|| self.member(replica)) {
                Ok(Some(member)) => match self.0.places.dial(replica) {
                    Some(dialling) => {
                        match self.dial(&member, dialling, Stay::Live, stopped.clone(), &mut |_| {}).await {
                            Ok(()) => {
                                backoff.succeeded();
                                Duration::from_millis(200)
                            }
                            Err(error) if error.means_replaced() => Duration::from_secs(1),
                            Err(error) => {
                                tracing::info!(peer = %member.name, %error, "no conversation");
                                backoff.failed(random())
                            }
                        }
                    }
                    None => Duration::from_secs(1),
                },
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
        dialling: Dialling<'_>,
        stay: Stay,
        stopped: watch::Receiver<bool>,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let connected = async {
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
            Ok((connection, Talk { link, start: Vec::new(), commits, stopped }))
        };
        let (connection, talk) = match connected.await {
            Ok(connected) => connected,
            Err(error) => {
                self.0.places.failed(member.replica, &error);
                return Err(error);
            }
        };
        let own = block_in_place(|| self.0.replica.id())?;
        let host = Host::new(&self.0.places, own, Some(dialling));
        talk.run(connection, Some(host), progress).await
    }

    /// Answers a peer that has said `start` already.
    pub(super) async fn answer(
        &self,
        connection: Connection,
        start: Vec<u8>,
        stopped: watch::Receiver<bool>,
    ) {
        let link = Link::respond(&self.0.replica, connection.binding, connection.peer, Duration::ZERO);
        let talk = Talk { link, start, commits: self.0.commits.subscribe(), stopped };
        let result = match block_in_place(|| self.0.replica.id()) {
            Ok(own) => talk.run(connection, Some(Host::new(&self.0.places, own, None)), &mut |_| {}).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result
            && !error.means_replaced()
        {
            tracing::info!(%error, "a conversation ended badly");
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
            let result = self.sync_with(&member, &mut |event| progress(&member, event)).await;
            results.push(SyncResult { member, result });
        }
        results
    }

    /// Exchanges everything once: in the conversation that goes on with the member already, or else in one of its own.
    #[expect(clippy::disallowed_methods, reason = "a peer that is silent is not waited for")]
    pub async fn sync_with(
        &self,
        member: &Member,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let mut moves = self.0.places.moves();
        let mut commits = self.0.commits.subscribe();
        let mut begun = Instant::now();
        loop {
            if let Some(dialling) = self.0.places.dial(member.replica) {
                let (_never, stopped) = watch::channel(false);
                match self.dial(member, dialling, Stay::Once, stopped, progress).await {
                    // By the one that this side may not have met yet.
                    Err(error) if error.means_replaced() => sleep(Duration::from_secs(1)).await,
                    done => return done,
                }
                begun = Instant::now();
            }
            let ours = block_in_place(|| self.0.replica.digest())?;
            if self.0.places.in_sync(member.replica, ours) {
                return Ok(());
            }
            let silent = self.0.places.silent_at(member.replica, begun, STILL);
            if Instant::now() >= silent {
                return Err(LinkError::Still.into());
            }
            tokio::select! {
                _ = moves.changed() => {}
                _ = commits.changed() => {}
                () = sleep_until(silent.into()) => {}
            }
        }
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
        let talk = Talk { link, start: Vec::new(), commits: self.0.commits.subscribe(), stopped };
        let own = block_in_place(|| self.0.replica.id())?;
        let host = Host::new(&self.0.places, own, self.0.places.dial(ticket.inviter));
        talk.run(connection, Some(host), progress).await
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
    Talk { link, start: Vec::new(), commits: commits.subscribe(), stopped }
        .run(connection, None, progress)
        .await
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
    /// What the peer has said before this began.
    start: Vec<u8>,
    commits: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
}

impl Talk {
    async fn run(
        mut self,
        connection: Connection,
        mut host: Option<Host<'_>>,
        progress: &mut (dyn FnMut(&LinkEvent) + Send),
    ) -> Result<(), NodeError> {
        let Connection { mut reader, writer, link: mut line, side, .. } = connection;
        let (queue, pieces) = mpsc::channel(QUEUE);
        let writing = tokio::spawn(write(writer, pieces));
        let mut queue = Some(queue);
        let mut told = |event: &LinkEvent, host: &mut Option<Host<'_>>| {
            if let LinkEvent::Accepted { peer, .. } = event {
                line.admit();
                if let Some(host) = host {
                    host.meet(*peer, side, line.meter());
                }
            }
            progress(event);
        };
        let result = self.pump(&mut reader, &mut queue, &mut host, &mut told).await;
        while let Some(event) = self.link.poll_event() {
            told(&event, &mut host);
        }
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
        let result = result.and(written);
        if let Some(host) = host {
            host.ended(&result);
        }
        result
    }

    #[expect(clippy::disallowed_methods, reason = "the pump brings the time")]
    async fn pump(
        &mut self,
        reader: &mut Reader,
        queue: &mut Option<mpsc::Sender<Vec<u8>>>,
        host: &mut Option<Host<'_>>,
        told: &mut (dyn FnMut(&LinkEvent, &mut Option<Host<'_>>) + Send),
    ) -> Result<(), NodeError> {
        let start = Instant::now();
        let mut buffer = vec![0; PIECE];
        let (mut waiting, mut leaving): (Option<Vec<u8>>, bool) = (None, false);
        block_in_place(|| self.link.receive(&std::mem::take(&mut self.start), Duration::ZERO))?;
        loop {
            while let Some(event) = self.link.poll_event() {
                told(&event, host);
            }
            if let Some(host) = host {
                host.note(self.link.peer_state(), start + self.link.heard());
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
            let deadline = self.link.poll_timeout().map(|at| at.saturating_sub(start.elapsed()));
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
                    block_in_place(|| self.link.receive(&buffer[..count], start.elapsed()))?;
                }
                changed = self.commits.changed() => {
                    changed.map_err(|_| NodeError::Cut)?;
                    block_in_place(|| self.link.wake(start.elapsed()))?;
                }
                () = sleep(deadline.unwrap_or(Duration::MAX)), if deadline.is_some() => {
                    block_in_place(|| self.link.handle_timeout(start.elapsed()))?;
                }
                () = Host::replaced(host) => {
                    self.link.give_way();
                    return Err(NodeError::Replaced);
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
            Err(_) => return Err(NetError::Timeout { after: WRITE_TIMEOUT }.into()),
        }
    }
    writer.finish().await;
    Ok(())
}
