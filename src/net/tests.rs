use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::*;
use crate::mailbox::{AccountId, ReplicaId};
use crate::member::SecretKey;
use crate::sync::{Event, Local, Session, Side, State};

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn endpoint(n: u8) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), &key(n), &Handle::current()).unwrap();
    let address = endpoint.local_address().unwrap();
    (endpoint, address)
}

/// Connects endpoint `client` to endpoint `server` and exchanges a few bytes both ways.
async fn meet(client: &Endpoint, server: &Endpoint, address: SocketAddr) -> (Connection, Connection) {
    let accept = async { server.accept().await.unwrap().establish().await.unwrap() };
    let connect = async {
        let mut connection = client.connect(server.id(), address).await.unwrap();
        connection.writer.write_all(b"ping").await.unwrap();
        connection
    };
    let (mut left, mut right) = tokio::join!(connect, accept);
    let mut buffer = [0; 16];
    assert_eq!(right.reader.read(&mut buffer).await.unwrap(), 4);
    right.writer.write_all(b"pong").await.unwrap();
    assert_eq!(left.reader.read(&mut buffer).await.unwrap(), 4);
    (left, right)
}

#[tokio::test]
async fn both_sides_know_who_is_there_and_name_the_connection_alike() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    let (left, right) = meet(&client, &server, address).await;
    assert_eq!((left.peer, right.peer), (Some(server.id()), Some(client.id())));
    assert_eq!(left.binding, right.binding);
    assert_eq!((left.side, right.side), (Side::Initiator, Side::Responder));
    let (again, _) = meet(&client, &server, address).await;
    assert_ne!(again.binding, left.binding, "a binding never comes again");
}

#[tokio::test]
async fn a_resumed_session_still_says_who_is_there() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    for _ in 0..3 {
        let (left, right) = meet(&client, &server, address).await;
        assert_eq!((left.peer, right.peer), (Some(server.id()), Some(client.id())));
    }
    assert_eq!(client.verifier.full.load(Ordering::Relaxed), 1, "later handshakes were resumed");
}

#[tokio::test]
async fn somebody_else_at_the_address_is_refused() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    let knock = tokio::spawn(async move { server.accept().await.unwrap().establish().await.err() });
    let wrong = key(3).peer_id();
    let error = client.connect(wrong, address).await.err().unwrap();
    assert!(matches!(error, NetError::WrongPeer { expected } if expected == wrong), "{error:?}");
    assert!(knock.await.unwrap().is_some());
    let any = client.connect_any(wrong, &["127.0.0.1:1:1".to_owned()]).await.err().unwrap();
    assert!(matches!(any, NetError::Address { .. }), "{any:?}");
}

#[tokio::test]
async fn strangers_are_limited_until_they_are_admitted() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    let (left, mut right) = meet(&client, &server, address).await;
    let Connection { mut writer, link: _link, .. } = left;
    let flood = 16 * STRANGER_WINDOW as usize;
    let mut writing = tokio::spawn(async move { writer.write_all(&vec![0; flood]).await });
    let blocked = tokio::time::timeout(Duration::from_millis(200), &mut writing).await;
    assert!(blocked.is_err(), "more than a window was taken from a stranger");
    assert!(right.link.traffic().received < 4 * u64::from(STRANGER_WINDOW));
    right.link.admit();
    writing.await.unwrap().unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    while received < flood {
        received += right.reader.read(&mut buffer).await.unwrap();
    }
}

#[tokio::test]
async fn one_host_does_not_take_all_places_of_strangers() {
    let ((_, _), (server, address)) = (endpoint(1), endpoint(2));
    let id = server.id();
    let (to, mut met) = tokio::sync::mpsc::unbounded_channel();
    let accepting = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.establish().await {
                    let _ = to.send(connection);
                }
            });
        }
    });
    let mut silent = Vec::new();
    let mut here = Vec::new();
    for n in 0..MAX_STRANGERS_OF_ONE {
        let (client, _) = endpoint(n as u8 + 10);
        let mut connection = client.connect(id, address).await.unwrap();
        connection.writer.write_all(b"x").await.unwrap();
        here.push(met.recv().await.unwrap());
        silent.push((client, connection));
    }
    let (late, _) = endpoint(99);
    let refused = late.connect(id, address).await.err().unwrap();
    assert!(matches!(refused, NetError::Closed { .. } | NetError::Lost(_)), "{refused:?}");
    // Whoever is known by now is no stranger.
    here[0].link.admit();
    let mut connection = late.connect(id, address).await.unwrap();
    connection.writer.write_all(b"x").await.unwrap();
    assert_eq!(met.recv().await.unwrap().peer, Some(late.id()));
    accepting.abort();
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_noticed_at_once() {
    // What the client sends goes to one server, and from some moment on to its next life.
    let relay = std::sync::Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let ((client, _), (first, old), (second, new)) = (endpoint(1), endpoint(2), endpoint(2));
    let (address, server) = (relay.local_addr().unwrap(), std::sync::Arc::new(std::sync::Mutex::new(old)));
    let to = server.clone();
    let carrying = tokio::spawn(async move {
        let (mut buffer, mut client) = (vec![0; 1 << 16], None);
        loop {
            let (count, from) = relay.recv_from(&mut buffer).await.unwrap();
            let servers = [old, new];
            let target = if servers.contains(&from) { client.unwrap() } else { *to.lock().unwrap() };
            if !servers.contains(&from) {
                client = Some(from);
            }
            relay.send_to(&buffer[..count], target).await.unwrap();
        }
    });
    let (mut left, _right) = meet(&client, &first, address).await;
    *server.lock().unwrap() = new;
    left.writer.write_all(b"news").await.unwrap();
    let error = tokio::time::timeout(IDLE_TIMEOUT / 4, left.reader.read(&mut [0; 8])).await;
    let error = error.expect("it is noticed long before the connection has been idle").unwrap_err();
    assert!(matches!(error, NetError::Lost(_)), "{error:?}");
    carrying.abort();
    drop(second);
}

#[tokio::test]
async fn a_close_carries_its_code() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    let (mut left, right) = meet(&client, &server, address).await;
    right.link.close(7, "enough");
    let error = left.reader.read(&mut [0; 8]).await.unwrap_err();
    assert!(matches!(error, NetError::Closed { code: 7 }), "{error:?}");
}

fn local(n: u8) -> Local {
    Local {
        account: AccountId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([n; 16]),
        state: State { digest: [5; 16], ..State::default() },
        members: [6; 8],
        records: Vec::new(),
        counter: 1 << 30,
        owes: false,
        introduction: Vec::new(),
    }
}

/// Drives a session that has nothing to do over `connection` until both have said goodbye.
async fn nothing_to_do(connection: Connection, mut session: Session, own: u8, peer: u8) -> (Traffic, usize) {
    let Connection { mut reader, mut writer, mut link, .. } = connection;
    let mut buffer = vec![0; 1 << 16];
    let (now, mut sent) = (Duration::ZERO, 0);
    loop {
        while let Some(event) = session.poll_event().unwrap() {
            match event {
                Event::Hello(_) if own == 1 => session.accept(&key(peer).public(), now).unwrap(),
                Event::Hello(_) => session.answer(&key(peer).public(), local(own), &key(own), now).unwrap(),
                Event::Accepted { in_sync } => {
                    assert!(in_sync);
                    link.admit();
                    session.bye();
                }
                other => assert_eq!(other, Event::Bye),
            }
        }
        while let Some(bytes) = session.poll_send(1 << 16) {
            sent += bytes.len();
            writer.write_all(&bytes).await.unwrap();
        }
        if session.is_finished() {
            break;
        }
        let count = reader.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the peer left without a goodbye");
        session.receive(&buffer[..count], now).unwrap();
    }
    writer.finish().await;
    (link.traffic(), sent)
}

#[tokio::test]
async fn a_session_with_nothing_to_do_is_small() {
    let ((client, _), (server, address)) = (endpoint(1), endpoint(2));
    for round in ["full", "resumed"] {
        let accept = async {
            let connection = server.accept().await.unwrap().establish().await.unwrap();
            let session = Session::respond(connection.binding, Duration::ZERO);
            nothing_to_do(connection, session, 2, 1).await
        };
        let connect = async {
            let connection = client.connect(server.id(), address).await.unwrap();
            let session = Session::initiate(local(1), &key(1), connection.binding, Duration::ZERO);
            nothing_to_do(connection, session, 1, 2).await
        };
        let ((wire, sent), (_, answered)) = tokio::join!(connect, accept);
        println!("no-op, {round} handshake: {wire:?}, frames {sent} and {answered} bytes");
        assert!(sent <= 150 && answered <= 150);
        assert!(wire.sent + wire.received < 16_000);
    }
}

#[tokio::test]
async fn pipes_skip_noise_and_agree_on_a_binding() {
    let (ours, theirs) = tokio::io::duplex(256);
    let (read_ours, write_ours) = tokio::io::split(ours);
    let (read_theirs, mut write_theirs) = tokio::io::split(theirs);
    let remote = tokio::spawn(async move {
        write_theirs.write_all(b"Welcome to host!\r\npostmerge-stdio-1 no nonce\nprompt$ ").await.unwrap();
        pipe(read_theirs, write_theirs, Side::Responder, [2; 32]).await.unwrap()
    });
    let left = pipe(read_ours, write_ours, Side::Initiator, [1; 32]).await.unwrap();
    let right = remote.await.unwrap();
    assert_eq!((left.binding, left.peer, right.peer), (right.binding, None, None));
    let session = Session::initiate(local(1), &key(1), left.binding, Duration::ZERO);
    let other = Session::respond(right.binding, Duration::ZERO);
    let (one, two) = tokio::join!(nothing_to_do(left, session, 1, 2), nothing_to_do(right, other, 2, 1));
    assert!(one.1 <= 150 && two.1 <= 150);
}

#[tokio::test]
async fn pipes_without_a_peer_are_refused() {
    let noise = std::io::Cursor::new(vec![b'x'; 1 << 20]);
    let error = pipe(noise, tokio::io::sink(), Side::Initiator, [1; 32]).await.err().unwrap();
    assert!(matches!(error, NetError::NotPostmerge), "{error:?}");
    let echo = format!("postmerge-stdio-1 {}\n", "01".repeat(32));
    let error = pipe(std::io::Cursor::new(echo), tokio::io::sink(), Side::Initiator, [1; 32]).await;
    assert!(matches!(error.err().unwrap(), NetError::NotPostmerge));
}
