//! One endpoint for several accounts: the first frame of a conversation names the one it is about.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::node::{Node, NodeError};
use super::{Connection, Endpoint, Incoming};
use crate::mailbox::AccountId;
use crate::sync::{HELLO_TIMEOUT, Naming, naming};

/// How long conversations may take to end in good order.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes read at once while the account is not known.
const PIECE: usize = 4096;

type Nodes = Arc<BTreeMap<AccountId, Node>>;

/// Answers the peers of several replicas, which must be of different accounts and share the endpoint, and dials those with a
/// known address, again and again, until `stop`. Then conversations end in good order, for a few seconds at most.
pub async fn serve(
    endpoint: &Endpoint,
    nodes: &[Node],
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let (stopping, stopped) = watch::channel(false);
    let (mut dialling, mut answering) = (JoinSet::new(), JoinSet::new());
    for node in nodes {
        dialling.spawn(node.clone().keep_in_touch(stopped.clone()));
    }
    let nodes: Nodes = Arc::new(nodes.iter().map(|node| (node.replica().account(), node.clone())).collect());
    tokio::pin!(stop);
    let result = loop {
        tokio::select! {
            () = &mut stop => break Ok(()),
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    answering.spawn(answer(nodes.clone(), incoming, stopped.clone()));
                }
                None => break Ok(()),
            },
            Some(_) = answering.join_next(), if !answering.is_empty() => {}
            // Only a replica that fails ends this.
            Some(ended) = dialling.join_next(), if !dialling.is_empty() => {
                if let Ok(Err(error)) = ended {
                    break Err(error);
                }
            }
        }
    };
    stopping.send_replace(true);
    let ended = async {
        while answering.join_next().await.is_some() {}
        while dialling.join_next().await.is_some() {}
    };
    let _ = timeout(FAREWELL, ended).await;
    endpoint.close(0, "stopping");
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    result
}

async fn answer(nodes: Nodes, incoming: Incoming, stopped: watch::Receiver<bool>) {
    let mut connection = match incoming.establish().await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a peer knocked in vain"),
    };
    let mut start = Vec::new();
    let named = match nodes.len() {
        1 => None,
        _ => match timeout(HELLO_TIMEOUT, account(&mut connection, &mut start)).await {
            Ok(named) => named,
            Err(_) => return tracing::debug!("a peer connected and said nothing"),
        },
    };
    // An account that is not here is refused by any of them.
    let node = named.and_then(|account| nodes.get(&account)).or_else(|| nodes.values().next());
    if let Some(node) = node {
        node.answer(connection, start, stopped).await;
    }
}

/// Reads until the peer has named an account, or it is clear that it names none.
async fn account(connection: &mut Connection, start: &mut Vec<u8>) -> Option<AccountId> {
    let mut buffer = [0; PIECE];
    loop {
        match naming(start) {
            Naming::Account(account) => return Some(account),
            Naming::Nothing => return None,
            Naming::Incomplete => match connection.reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => start.extend_from_slice(&buffer[..count]),
            },
        }
    }
}
