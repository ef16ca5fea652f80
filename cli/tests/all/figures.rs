//! Metrics, as a scraper reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::support::{Serve, World, until};

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends bytes and gives all that comes back.
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // The answer may be there before all of a large request is taken.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn scrape(port: u16) -> String {
    let answer = ask(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// Samples by figure and labels, the way Prometheus reads them.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Reads the text format, and wants what Prometheus wants of names and order.
#[track_caller]
fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    let (mut seen, mut figure) = (BTreeSet::new(), None);
    assert!(page.ends_with('\n'));
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && seen.insert(name.to_owned()), "{name} is there twice");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(kind == "counter" || kind == "gauge", "{kind}");
            let fits = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("postmerge_") && name.chars().all(fits), "{name}");
            figure = Some(name.to_owned());
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        assert_eq!(Some(name), figure.as_deref(), "a sample is not below its figure");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest),
            None => (BTreeMap::new(), rest),
        };
        let value: f64 = value.strip_prefix(' ').unwrap().parse().unwrap();
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "{line} is there twice");
    }
    samples
}

/// Reads `name="value",...}`; gives what follows.
fn labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    loop {
        let (name, behind) = rest.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), behind.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (end, '"') => break end,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("\\{c} means nothing"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none());
        match behind[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, behind[end + 1..].strip_prefix('}').unwrap()),
        }
    }
}

/// The one sample of a figure.
#[track_caller]
fn one(samples: &Samples, figure: &str) -> f64 {
    let mut found = samples.iter().filter(|((name, _), _)| name == figure);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => *value,
        other => panic!("{figure}: {other:?}"),
    }
}

/// Two replicas, the first of which is served with metrics and IMAP; gives it, and the ports of both.
fn served(world: &World) -> (Serve, u16, u16) {
    world.ok("a", &["init", "--name", "alpha"]);
    world.append("a", "INBOX", "Subject: one\n\n");
    let (metrics, imap) = (port(), port());
    let (at, imap_at) = (format!("127.0.0.1:{metrics}"), format!("127.0.0.1:{imap}"));
    let serve = world.serve("a", &["--listen", "127.0.0.1:0", "--metrics", &at, "--imap", &imap_at]);
    let ticket = world.ok("a", &["invite"]);
    world.ok("b", &["join", ticket.trim(), "--name", "be\"ta"]);
    (serve, metrics, imap)
}

#[test]
fn a_page_follows_the_format_and_tells_the_truth() {
    let world = World::new();
    let (serve, metrics, imap) = served(&world);
    let away = parse(&scrape(metrics));
    let peer: Vec<_> = away.keys().filter(|(name, _)| name == "postmerge_peer_connected").collect();
    assert_eq!(peer[0].1["peer"], "be\"ta");
    assert_eq!(one(&away, "postmerge_peer_connected"), 0.0);
    assert_eq!(one(&away, "postmerge_peer_unacknowledged_changes"), 0.0);
    assert_eq!(one(&away, "postmerge_messages"), 1.0);

    world.append("a", "INBOX", "Subject: two\n\n");
    let status = ask(imap, b"a LOGIN nobody secret\r\nb LOGOUT\r\n");
    assert!(status.contains("a NO "), "{status}");
    let more = parse(&scrape(metrics));
    assert_eq!(one(&more, "postmerge_messages"), 2.0);
    assert_eq!(one(&more, "postmerge_peer_unacknowledged_changes"), 1.0);
    assert_eq!(one(&more, "postmerge_imap_failed_logins_total"), 1.0);
    assert_eq!(one(&more, "postmerge_imap_accepted_connections_total"), 1.0);

    let _second = world.serve("b", &["--offline"]);
    world.run("b", &["sync"]).fails(0, "");
    let synced = parse(&scrape(metrics));
    assert_eq!(one(&synced, "postmerge_peer_unacknowledged_changes"), 0.0);
    for (rises, least) in [
        ("postmerge_peer_sent_bytes_total", 1.0),
        ("postmerge_peer_received_bytes_total", 1.0),
        ("postmerge_peer_last_contact_timestamp_seconds", 0.0),
    ] {
        let (before, after) = (one(&more, rises), one(&synced, rises));
        assert!(before > 1000.0 && after >= before + least, "{rises}: {before}, {after}");
    }
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let world = World::new();
    world.ok("a", &["init"]);
    let port = port();
    let serve = world.serve("a", &["--offline", "--metrics", &format!("localhost:{port}")]);
    let status = |request: &[u8]| ask(port, request).lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status(b"DELETE /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(b"hello\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(status(&[b'x'; 8192]), "HTTP/1.1 431 Request Header Fields Too Large");
    let head = ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // Those who say nothing take all the places, and give them back.
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    until("all places to be taken", || ask(port, b"GET /metrics HTTP/1.1\r\n\r\n").is_empty());
    drop(silent);
    until("a place", || !ask(port, b"GET /metrics HTTP/1.1\r\n\r\n").is_empty());
    parse(&scrape(port));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn only_this_machine_may_read_them() {
    let world = World::new();
    world.ok("a", &["init"]);
    for address in ["0.0.0.0:9367", "[::]:9367", "192.0.2.1:9367"] {
        let refused = world.run("a", &["serve", "--offline", "--metrics", address]);
        refused.fails(1, "could read the metrics");
        refused.fails(1, "Hint: name a port of this machine");
    }
    world.run("a", &["serve", "--offline", "--metrics", "9367"]).fails(1, "is not ADDR:PORT");
}

#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_to_say() {
    let world = World::new();
    let (_serve, metrics, _) = served(&world);
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(scrape(metrics).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
