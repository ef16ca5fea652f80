//! Strangers at the door: what it costs to refuse those who belong to no account, and what a member notices of it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use postmerge::mailbox::{AccountId, ReplicaId, Uid};
use postmerge::member::{PeerId, SecretKey};
use postmerge::net::Endpoint;
use postmerge::sync::{Local, Session, State};
use postmerge::uid::Event;
use tokio::runtime::Runtime;

use crate::first::child;
use crate::meter::{Table, Unit, cpu, median, wait_until};
use crate::wire::{Home, pair, serve};

/// Strangers that knock at the same time.
const AT_ONCE: usize = 8;

/// Goal of the page on security: 2,000 a second on one core, and a flag in at most three times its usual time.
pub(crate) fn strangers(table: &mut Table, work: &Path, messages: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let (first, node, second) = pair(work, messages, &runtime);
    let address = node.endpoint().local_address().expect("an address").to_string();
    let guest = second.node(runtime.handle());
    let (serving, living) = (serve(&runtime, &node), serve(&runtime, &guest));
    wait_until("a conversation", || guest.states().iter().any(|state| state.connected));
    let (to, seen) = std::sync::mpsc::channel();
    let _subscription = second.replica.subscribe(move |events: &[Event]| {
        if events.iter().any(|event| matches!(event, Event::Flags { .. })) {
            let _ = to.send(Instant::now());
        }
    });
    let uids = first.uids("INBOX");
    let calm = flags(&first, &seen, &uids, "$Calm");

    let mut flood = child(&["strangers".into(), address.into(), node.endpoint().id().to_string().into()]);
    let mut said = BufReader::new(flood.stdout.take().expect("the child speaks"));
    let mut count = || {
        let mut line = String::new();
        said.read_line(&mut line).expect("the child speaks");
        let (shaken, turned) = line.trim().split_once(' ').expect("two numbers");
        [shaken, turned].map(|number| number.parse::<u64>().expect("a number"))
    };
    // It counts aloud, once a second.
    let (before, start, from) = (count(), cpu(), Instant::now());
    let crowded = flags(&first, &seen, &uids, "$Crowded");
    let (refused, used, wall) = (
        {
            let now = count();
            [now[0] - before[0], now[1] - before[1]]
        },
        cpu() - start,
        from.elapsed().as_secs_f64(),
    );
    drop(flood.stdin.take());
    flood.wait().expect("a child ends");
    let all = refused[0] + refused[1];
    table.row("a stranger that is refused: CPU", Unit::Micros, 500.0, used / all as f64 * 1e6);
    table.beside(
        "– one flag while they knock, from call to the other side, p50",
        Unit::Seconds,
        3.0 * calm,
        crowded,
        calm,
        "without them",
    );
    table.note(format!(
        "{} strangers were refused after the handshake and their hello and {} at once, since so many of their address knocked, in {wall:.1} s, \
         {AT_ONCE} at a time; they need the other core.",
        refused[0], refused[1]
    ));
    living.stop();
    serving.stop();
}

fn flags(first: &Home, seen: &Receiver<Instant>, uids: &[Uid], keyword: &str) -> f64 {
    let mut delays = Vec::new();
    for uid in uids.iter().cycle().take(150.min(uids.len())) {
        let start = Instant::now();
        first.flag("INBOX", &[*uid], keyword);
        let at = seen.recv_timeout(Duration::from_secs(20)).expect("the flag arrives");
        delays.push((at - start).as_secs_f64());
        std::thread::sleep(Duration::from_millis(20));
    }
    median(delays)
}

/// What a child does: knocks until nobody listens to it any more.
pub(crate) fn run_child(arguments: &[String]) {
    let (address, peer): (_, PeerId) =
        (arguments[1].parse().expect("an address"), arguments[2].parse().expect("a key"));
    let runtime = Runtime::new().expect("a runtime");
    let (refused, over) =
        (Arc::new([AtomicU64::new(0), AtomicU64::new(0)]), Arc::new(AtomicBool::new(false)));
    for n in 0..AT_ONCE {
        let key = SecretKey::from_seed([n as u8 + 100; 32]);
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().expect("an address"), &key, runtime.handle());
        let (endpoint, refused) = (endpoint.expect("a socket"), refused.clone());
        runtime.spawn(async move {
            loop {
                let Ok(mut connection) = endpoint.connect(peer, address).await else {
                    refused[1].fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let hello = hello(&key, connection.binding);
                let _ = connection.writer.write_all(&hello).await;
                // Until it is closed.
                while let Ok(1..) = connection.reader.read(&mut [0; 1024]).await {}
                refused[0].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let told = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    while !over.load(Ordering::Relaxed) {
        println!("{} {}", refused[0].load(Ordering::Relaxed), refused[1].load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As a member of some account would say it.
fn hello(key: &SecretKey, binding: [u8; 32]) -> Vec<u8> {
    let local = Local {
        account: AccountId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([2; 16]),
        state: State::default(),
        members: [0; 8],
        records: Vec::new(),
        counter: 0,
        owes: false,
        introduction: Vec::new(),
    };
    let mut session = Session::initiate(local, key, binding, Duration::ZERO);
    session.poll_send(4096).expect("a hello")
}
