//! The same over real QUIC on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postmerge::mailbox::Uid;
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::net::{Endpoint, Node, PeerState};
use postmerge::replica::{Founding, Invitation, Replica};
use postmerge::uid::Block;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::pair::{Home, name};

fn endpoint(seed: u8) -> Endpoint {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Endpoint::bind(any, &SecretKey::from_seed([seed; 32]), &Handle::current()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a deadline for what must come about")]
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_joins_over_quic_and_changes_are_pushed_both_ways_until_it_is_forgotten() {
    let dir = TempDir::new().unwrap();
    let server = endpoint(1);
    let address = server.local_address().unwrap().to_string();
    let founding = Founding {
        role: Role::Server,
        name: MemberName::new("server").unwrap(),
        block: Block::STANDARD,
        endpoint: server.id(),
    };
    let first = Replica::found(&dir.path().join("a"), None, &founding).unwrap();
    for n in 0..50 {
        first
            .append(&name("INBOX"), format!("Subject: {n}\n\n").as_bytes(), Default::default(), None)
            .unwrap();
    }
    let node = Node::new(first.clone(), server);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn({
        let node = node.clone();
        async move { node.serve(async { _ = stopped.await }).await }
    });
    let invitation = Invitation {
        role: Role::Server,
        addresses: vec![address],
        endpoint: node.endpoint().id(),
        valid_for: 60,
    };
    let ticket = first.invite(&invitation).unwrap();
    let second = Replica::prepare_join(&dir.path().join("b"), None, &ticket).unwrap();
    let guest = Node::new(second.clone(), endpoint(2));
    guest.join(&ticket, MemberName::new("desktop").unwrap(), true, &mut |_| {}).await.unwrap();
    assert_eq!(second.mailbox(&name("INBOX")).unwrap().messages, 50);
    assert_eq!(first.digest().unwrap(), second.digest().unwrap());

    // A used ticket is refused by name.
    let third = Replica::prepare_join(&dir.path().join("c"), None, &ticket).unwrap();
    let thief = Node::new(third, endpoint(3));
    let refused =
        thief.join(&ticket, MemberName::new("thief").unwrap(), true, &mut |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("already used"), "{refused}");

    let (stop_guest, guest_stopped) = tokio::sync::oneshot::channel::<()>();
    let living = tokio::spawn({
        let guest = guest.clone();
        async move { guest.serve(async { _ = guest_stopped.await }).await }
    });
    until("a conversation", || guest.states().iter().any(|state| state.connected)).await;
    let to = first.append(&name("INBOX"), &b"Subject: pushed\n\n"[..], Default::default(), None).unwrap();
    until("the push", || second.body(to.entry).is_ok()).await;
    let back = second.append(&name("INBOX"), &b"Subject: back\n\n"[..], Default::default(), None).unwrap();
    until("the push back", || first.body(back.entry).is_ok()).await;
    let in_sync = |node: &Node| node.states().iter().any(|state| state.connected && state.in_sync);
    until("both to know that they are in sync", || in_sync(&node) && in_sync(&guest)).await;
    // A sync uses the conversation that is there.
    let mut talked = false;
    let results = guest.sync(&mut |_, _| talked = true).await;
    assert!(results.len() == 1 && results[0].result.is_ok() && !talked, "{results:?}");
    let uids = |replica: &Replica| -> Vec<_> {
        let messages = replica.messages(&name("INBOX"), Uid::FIRST, usize::MAX).unwrap();
        messages.into_iter().map(|message| (message.uid, message.entry)).collect()
    };
    until("equal UIDs", || uids(&first) == uids(&second)).await;

    first.forget(second.id().unwrap()).unwrap();
    until("the end of the conversation", || node.states().iter().all(|state| !state.connected)).await;
    let hears = |state: &PeerState| state.error.as_ref().is_some_and(|error| error.contains("was forgotten"));
    until("the guest to hear of it", || guest.states().iter().any(hears)).await;
    stop_guest.send(()).unwrap();
    living.await.unwrap().unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_dial_each_other_keep_one_conversation() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    let nodes =
        [(&first, 1), (&second, 2)].map(|(home, seed)| Node::new(home.replica.clone(), endpoint(seed)));
    for node in &nodes {
        let address = node.endpoint().local_address().unwrap().to_string();
        node.replica().announce(vec![address]).unwrap();
    }
    first.sync(&second);
    second.sync(&first);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = nodes.clone().map(|node| {
        let mut stopped = stopped.clone();
        tokio::spawn(async move { node.serve(async { _ = stopped.changed().await }).await })
    });
    let one = |node: &Node| node.endpoint().connections() == 1 && node.states().iter().all(|it| it.in_sync);
    until("one conversation", || nodes.iter().all(one)).await;
    // Longer than anybody waits before dialling again: nothing may come and go.
    let watching = tokio::time::Duration::from_millis(2_500);
    let went = tokio::time::timeout(watching, async {
        while nodes.iter().all(one) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(went.await.is_err(), "{:?}", nodes.each_ref().map(Node::states));
    stop.send(true).unwrap();
    for done in serving {
        done.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_answer_is_given_up_when_it_is_said() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "the time that passes is the subject")]
    let start = Instant::now();
    let error = endpoint(1).connect_any(endpoint(2).id(), &[address]).await.err().unwrap();
    let said = format!("no answer within {} s", start.elapsed().as_secs());
    assert_eq!(error.to_string(), said);
}
