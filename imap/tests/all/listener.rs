//! The listener over real sockets: TLS, compression, limits, and its end.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use postmerge_imap::{Limits, Mode};
use ring::{digest, hmac, pbkdf2};

use crate::server::{Authority, Running, Wire};

const CLEAR: Mode = Mode::Clear { tls: None, passwords: true };

#[test]
fn imaps_speaks_tls_from_the_first_byte() {
    let authority = Authority::new();
    let server = Running::start(Mode::Tls(authority.tls.clone()), Limits::default());
    let mut client = authority.secure(server.connect());
    let greeting = client.line();
    assert!(greeting.starts_with("* OK"), "{greeting}");
    let offers = client.ok("CAPABILITY");
    assert!(offers.contains("AUTH=SCRAM-SHA-256-PLUS") && !offers.contains("STARTTLS"), "{offers}");
    client.ok("LOGIN kim secret");
    client.ok("SELECT INBOX");

    // Somebody without TLS is told nothing.
    let mut client = server.connect();
    client.send(b"a CAPABILITY\r\n");
    let mut heard = Vec::new();
    let _ = client.0.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"*"), "{heard:?}");
}

#[test]
fn starttls_forgets_what_came_before_it() {
    let authority = Authority::new();
    let mode = Mode::Clear { tls: Some(authority.tls.clone()), passwords: false };
    let server = Running::start(mode, Limits::default());
    let mut client = server.connect();
    client.line();
    let offers = client.ok("CAPABILITY");
    assert!(offers.contains("STARTTLS") && offers.contains("LOGINDISABLED"), "{offers}");
    let refused = client.command("LOGIN kim secret");
    assert!(refused[0].starts_with("a NO [PRIVACYREQUIRED]"), "{refused:?}");

    // Somebody on the way adds a command, which must not count as one that came under TLS.
    client.send(b"a STARTTLS\r\nx NOOP\r\n");
    let begin = client.line();
    assert!(begin.starts_with("a OK"), "{begin}");
    let mut client = authority.secure(client);
    let offers = client.ok("CAPABILITY");
    assert!(!offers.contains("x OK"), "{offers}");
    assert!(offers.contains("AUTH=PLAIN") && !offers.contains("STARTTLS"), "{offers}");
    let again = client.command("STARTTLS");
    assert!(again[0].starts_with("a BAD"), "{again:?}");
    client.ok("LOGIN kim secret");
}

/// The client's side of RFC 5802: what it says last, and what it then wants to hear.
fn scram(header: &str, bound: &[u8], bare: &str, server_first: &str) -> (String, String) {
    let parts: Vec<&str> = server_first.split(',').collect();
    let [nonce, salt, iterations] = parts[..] else { panic!("{server_first}") };
    let salt = BASE64.decode(&salt.as_bytes()[2..]).unwrap();
    let mut salted = [0; 32];
    let iterations = iterations[2..].parse().unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, b"secret", &mut salted);
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let binding = BASE64.encode(&[header.as_bytes(), bound].concat());
    let without_proof = format!("c={binding},{nonce}");
    let message = format!("{bare},{server_first},{without_proof}");
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let signature = sign(stored_key.as_ref(), message.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let answer = sign(sign(&salted, b"Server Key").as_ref(), message.as_bytes());
    let say = format!("{without_proof},p={}", BASE64.encode(&proof));
    (say, format!("v={}", BASE64.encode(answer.as_ref())))
}

/// Logs in bound to the connection, or to another one; gives the tagged answer.
fn log_in_bound(authority: &Authority, server: &Running, alter: impl Fn(&mut [u8; 32])) -> String {
    let mut client = authority.secure(server.connect());
    client.line();
    let connection = &client.0.get_ref().conn;
    let mut bound =
        connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap();
    alter(&mut bound);
    let (header, bare) = ("p=tls-exporter,,", "n=kim,r=client");
    let first = BASE64.encode(format!("{header}{bare}").as_bytes());
    client.send(format!("a AUTHENTICATE SCRAM-SHA-256-PLUS {first}\r\n").as_bytes());
    let challenge = |line: &str| {
        let bytes = line.strip_prefix("+ ").map(|line| BASE64.decode(line.as_bytes()).unwrap());
        String::from_utf8(bytes.unwrap_or_else(|| panic!("{line}"))).unwrap()
    };
    let (last, expected) = scram(header, &bound, bare, &challenge(&client.line()));
    client.send(format!("{}\r\n", BASE64.encode(last.as_bytes())).as_bytes());
    let mut line = client.line();
    if line.starts_with('+') {
        assert_eq!(challenge(&line), expected, "a client would not trust this server");
        client.send(b"\r\n");
        line = client.line();
    }
    line
}

#[test]
fn scram_plus_binds_the_login_to_its_tls() {
    let authority = Authority::new();
    let server = Running::start(Mode::Tls(authority.tls.clone()), Limits::default());
    let answer = log_in_bound(&authority, &server, |_| {});
    assert!(answer.starts_with("a OK"), "{answer}");
    let answer = log_in_bound(&authority, &server, |bound| bound[31] ^= 1);
    assert!(answer.starts_with("a NO"), "{answer}");
}

/// Both directions of a compressed connection.
struct Deflated {
    reader: DeflateDecoder<TcpStream>,
    writer: DeflateEncoder<TcpStream>,
}

impl Read for Deflated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for Deflated {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

#[test]
fn everything_after_compress_is_deflated() {
    let server = Running::start(CLEAR, Limits::default());
    let mut client = server.connect();
    client.line();
    client.ok("LOGIN kim secret");
    client.ok("COMPRESS DEFLATE");
    assert!(client.0.buffer().is_empty());
    let stream = client.0.into_inner();
    let writer = DeflateEncoder::new(stream.try_clone().unwrap(), Compression::fast());
    let deflated = Deflated { reader: DeflateDecoder::new(stream), writer };
    let mut client = Wire(BufReader::new(deflated));

    // More than one buffer of anything on the way.
    let line = "Nothing compresses like a line that comes again.\r\n";
    let message = format!("Subject: long\r\n\r\n{}", line.repeat(10_000));
    let append = format!("APPEND INBOX {{{}+}}\r\n{message}", message.len());
    client.ok(&append);
    client.ok("SELECT INBOX");
    let heard = client.ok("FETCH 1 BODY.PEEK[]");
    assert_eq!(heard.matches(line.trim_end()).count(), 10_000);
    let again = client.command("COMPRESS DEFLATE");
    assert!(again[0].starts_with("a NO [COMPRESSIONACTIVE]"), "{again:?}");
}

#[test]
fn one_address_has_so_many_connections() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let server = Running::start(CLEAR, limits);
    let [mut first, mut second, mut third] = [0, 1, 2].map(|_| server.connect());
    assert!(first.line().starts_with("* OK") && second.line().starts_with("* OK"));
    let refused = third.line();
    assert!(refused.starts_with("* BYE [UNAVAILABLE]"), "{refused}");
    assert!(third.is_over());
    // Whoever leaves makes room, a moment after it is told.
    first.ok("LOGOUT");
    let start = now();
    while !server.connect().line().starts_with("* OK") {
        assert!(start.elapsed() < Duration::from_secs(60), "no room is made");
    }
}

#[test]
fn the_server_as_a_whole_has_so_many_connections() {
    let server = Running::start(CLEAR, Limits { connections: 1, ..Limits::default() });
    let [mut first, mut second] = [0, 1].map(|_| server.connect());
    assert!(first.line().starts_with("* OK"));
    assert!(second.line().starts_with("* BYE"));
}

#[test]
fn a_failed_login_is_answered_late_and_nothing_after_it_sooner() {
    let server = Running::start(CLEAR, Limits::default());
    let mut client = server.connect();
    client.line();
    let start = now();
    client.send(b"x LOGIN kim wrong\r\ny NOOP\r\n");
    let answer = client.line();
    assert!(answer.starts_with("x NO [AUTHENTICATIONFAILED]"), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(1), "guessing is too quick");
    assert!(client.line().starts_with("y OK"));
    client.ok("LOGIN kim secret");
}

#[test]
fn guesses_over_several_connections_wait_as_over_one() {
    let server = Running::start(CLEAR, Limits::default());
    let guess = || {
        let mut client = server.connect();
        client.line();
        let start = now();
        client.send(b"x LOGIN kim wrong\r\n");
        assert!(client.line().starts_with("x NO"));
        start.elapsed()
    };
    assert!(guess() >= Duration::from_secs(1));
    assert!(guess() >= Duration::from_secs(2), "a new connection starts anew");
}

#[test]
fn a_server_that_stops_says_goodbye_to_whoever_is_idle() {
    let server = Running::start(CLEAR, Limits::default());
    let [mut stranger, mut idle] = [0, 1].map(|_| server.connect());
    stranger.line();
    idle.line();
    idle.ok("LOGIN kim secret");
    idle.ok("SELECT INBOX");
    idle.send(b"a IDLE\r\n");
    assert!(idle.line().starts_with('+'));
    server.stop();
    for client in [&mut stranger, &mut idle] {
        let bye = client.line();
        assert!(bye.starts_with("* BYE"), "{bye}");
        assert!(client.is_over());
    }
}

#[expect(clippy::disallowed_methods, reason = "sockets keep real time")]
fn now() -> Instant {
    Instant::now()
}
