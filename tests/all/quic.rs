//! The same over real QUIC on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postmerge::mailbox::Uid;
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::net::{Endpoint, Node};
use postmerge::replica::{Founding, Invitation, Replica};
use postmerge::uid::Block;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::pair::name;

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
    let uids = |replica: &Replica| -> Vec<_> {
        let messages = replica.messages(&name("INBOX"), Uid::FIRST, usize::MAX).unwrap();
        messages.into_iter().map(|message| (message.uid, message.entry)).collect()
    };
    until("equal UIDs", || uids(&first) == uids(&second)).await;

    first.forget(second.id().unwrap()).unwrap();
    until("the end of the conversation", || node.states().iter().all(|state| !state.connected)).await;
    stop_guest.send(()).unwrap();
    living.await.unwrap().unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
