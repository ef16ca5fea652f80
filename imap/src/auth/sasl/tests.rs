//! Whole exchanges as a session sees them.

use proptest::prelude::*;

use super::*;
use crate::auth::Bindings;
use crate::auth::testing::authenticator;

const CLEAR: Channel = Channel::Clear { passwords: false };
const LOOPBACK: Channel = Channel::Clear { passwords: true };

const SERVER_NONCE: [u8; ServerNonce::LEN] = *b"eighteen bytes now";

fn start(mechanism: Mechanism, initial: Option<&[u8]>, channel: &Channel) -> Step {
    Sasl::start(mechanism, initial, channel, &authenticator(), ServerNonce::from_bytes(SERVER_NONCE))
}

/// What a session would write: each challenge, then the end.
fn transcript(
    mechanism: Mechanism,
    initial: Option<&[u8]>,
    channel: &Channel,
    lines: &[&[u8]],
) -> Vec<String> {
    let mut step = start(mechanism, initial, channel);
    let mut lines = lines.iter();
    let mut written = Vec::new();
    loop {
        let (line, next) = match step {
            Step::Challenge { line, next } => (line, next),
            Step::Done(user) => return [written, vec![format!("OK {}", user.name())]].concat(),
            Step::Failed(failure) => {
                return [written, vec![format!("{:?} {failure}", failure.answer())]].concat();
            }
        };
        written.push(format!("+ {}", BASE64.decode(line.as_bytes()).unwrap().escape_ascii()));
        step = next.respond(lines.next().expect("another challenge than expected"), &authenticator());
    }
}

fn base64(text: &str) -> Vec<u8> {
    BASE64.encode(text.as_bytes()).into_bytes()
}

#[test]
fn plain_logs_in_with_and_without_initial_response() {
    let wrong = "AuthenticationFailed wrong name or password";
    for (message, end) in [
        ("\0user\0pencil", "OK user"),
        ("user\0user\0pencil", "OK user"),
        ("\0user\0pen", wrong),
        ("\0nobody\0pencil", wrong),
        ("root\0user\0pencil", "AuthorizationFailed nobody may act as somebody else"),
        ("user\0pencil", "AuthenticationFailed a response is no message of its mechanism"),
    ] {
        let line = base64(message);
        assert_eq!(transcript(Mechanism::Plain, Some(&line), &LOOPBACK, &[]), [end], "{message:?}");
        assert_eq!(transcript(Mechanism::Plain, None, &LOOPBACK, &[&line]), ["+ ", end], "{message:?}");
    }
}

#[test]
fn scram_logs_in_and_sends_its_proof_as_a_challenge() {
    // The exchange of RFC 7677, section 3, with another nonce of the server; computed with Python's `hmac`.
    let first = base64("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let server_first = "+ r=rOprNGfwEbeRWgbNEkqOZWlnaHRlZW4gYnl0ZXMgbm93,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let last = base64(
        "c=biws,r=rOprNGfwEbeRWgbNEkqOZWlnaHRlZW4gYnl0ZXMgbm93,p=RaA7Ccb1TVadOmKUSzLWHjDN5MmwsmhNDHo8jv5qmVc=",
    );
    let server_final = "+ v=26RDv0DxtR75AgSBEmu4xGxVOWnQxkiTkCV/YIHWKEc=";
    let run = |initial, lines: &[&[u8]]| transcript(Mechanism::ScramSha256, initial, &CLEAR, lines);
    assert_eq!(run(Some(&first), &[&last, b""]), [server_first, server_final, "OK user"]);
    assert_eq!(run(None, &[&first, &last, b""]), ["+ ", server_first, server_final, "OK user"]);
    let malformed = "AuthenticationFailed a response is no message of its mechanism";
    assert_eq!(run(Some(&first), &[&last, &base64("x")]), [server_first, server_final, malformed]);
    assert_eq!(run(Some(&first), &[&last, b"*"]), [server_first, server_final, "Bad the client gave up"]);
    let breaks = "AuthenticationFailed a SCRAM message breaks the grammar (RFC 5802, section 7)";
    assert_eq!(run(Some(&first), &[b""]), [server_first, breaks]);
    assert_eq!(run(Some(b"="), &[]), [breaks]);
}

#[test]
fn a_mechanism_is_taken_only_where_it_is_offered() {
    let bound = Channel::Tls(Bindings { exporter: Some([0; 32]), ..Bindings::default() });
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha256Plus] {
        for channel in [CLEAR, LOOPBACK, Channel::Tls(Bindings::default()), bound.clone()] {
            let offered = channel.capabilities().any(|said| said == mechanism.capability());
            let taken = matches!(start(mechanism, None, &channel), Step::Challenge { .. });
            assert_eq!(taken, offered, "{mechanism} over {channel:?}");
        }
    }
    let run = |mechanism| transcript(mechanism, Some(&base64("\0user\0pencil")), &CLEAR, &[]);
    assert_eq!(run(Mechanism::Plain), ["PrivacyRequired PLAIN is not offered on this connection"]);
    assert_eq!(run(Mechanism::ScramSha256Plus), ["No SCRAM-SHA-256-PLUS is not offered on this connection"]);
}

#[test]
fn lines_that_are_no_responses_are_bad() {
    let not_base64 = "Bad a response is not in base64 (RFC 4648, section 4)";
    let too_long = "Bad a response is longer than 4096 bytes";
    let longest = base64(&"x".repeat(4096));
    let longer = base64(&"x".repeat(4097));
    let run = |line: &[u8]| transcript(Mechanism::Plain, None, &LOOPBACK, &[line]).pop().unwrap();
    assert_eq!(run(b"*"), "Bad the client gave up");
    for line in [&b"**"[..], b"=", b"AHVzZXIAcGVuY2ls ", b"AHVzZXIAcGVuY2l", b"AHVz\0", b"\xff"] {
        assert_eq!(run(line), not_base64, "{}", line.escape_ascii());
    }
    assert_eq!(longest.len(), longer.len(), "only the decoded length tells them apart");
    assert!(run(&longest).starts_with("AuthenticationFailed"));
    assert_eq!(run(&longer), too_long);
    assert_eq!(run(&[b'*'; 1 << 20]), too_long, "before it is decoded");
}

proptest! {
    #[test]
    fn any_lines_are_answered(mechanism in 0..3, initial: Option<Vec<u8>>, lines: [Vec<u8>; 3], encode: bool) {
        let mechanism = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha256Plus][mechanism as usize];
        let channel = Channel::Tls(Bindings { exporter: Some([0; 32]), ..Bindings::default() });
        let shape = |line: &Vec<u8>| if encode { BASE64.encode(line).into_bytes() } else { line.clone() };
        let mut step = start(mechanism, initial.as_ref().map(shape).as_deref(), &channel);
        for line in &lines {
            let Step::Challenge { next, .. } = step else { break };
            step = next.respond(&shape(line), &authenticator());
        }
        prop_assert!(matches!(step, Step::Failed(_)));
    }
}
