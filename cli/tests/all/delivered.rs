//! Mail that is handed over: `deliver`, and LMTP.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::{Done, Serve, World, until};

/// Replicas of Kim and Lee, whose users are called so; `others` are users of Kim's.
fn people(others: &[&str]) -> World {
    let world = World::new();
    world.ok("kim", &["init"]);
    world.ok("lee", &["init", "--share-endpoint", world.path("kim").to_str().unwrap()]);
    for (store, name) in
        [("kim", "kim"), ("lee", "lee")].into_iter().chain(others.iter().map(|name| ("kim", *name)))
    {
        world.run_with(store, &["user", "add", name], b"secret\n").ok();
    }
    world
}

fn serve(world: &World, arguments: &[&str]) -> Serve {
    let lee = world.path("lee");
    let always = ["--offline", "--host", lee.to_str().unwrap(), "--lmtp", "./lmtp"];
    world.serve("kim", &[&always, arguments].concat())
}

/// A mail server's side of a connection.
struct Lmtp(BufReader<UnixStream>);

impl Lmtp {
    fn connect(world: &World) -> Lmtp {
        let mut lmtp = Lmtp(BufReader::new(UnixStream::connect(world.path("lmtp")).unwrap()));
        assert_eq!(lmtp.codes(1), ["220"]);
        lmtp.send(b"LHLO mx\r\n");
        assert_eq!(lmtp.codes(6), ["250"; 6]);
        lmtp
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The codes of the next replies.
    fn codes(&mut self, count: usize) -> Vec<String> {
        let line = |_| {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line[..3].to_owned()
        };
        (0..count).map(line).collect()
    }

    /// Hands over a message as a pipelining server does; gives the codes of RCPT and of the message.
    fn deliver(&mut self, to: &[&str], text: &[u8]) -> (Vec<String>, Vec<String>) {
        self.send(b"MAIL FROM:<far@example.org>\r\n");
        to.iter().for_each(|to| self.send(format!("RCPT TO:<{to}>\r\n").as_bytes()));
        self.send(b"DATA\r\n");
        assert_eq!(self.codes(1), ["250"]);
        let taken = self.codes(to.len());
        assert_eq!(self.codes(1), ["354"]);
        self.send(text);
        self.send(b".\r\n");
        let expected = taken.iter().filter(|code| *code == "250").count();
        (taken, self.codes(expected))
    }
}

/// The bodies of a mailbox.
fn bodies(world: &World, store: &str, mailbox: &str) -> Vec<String> {
    let shown = world.json(store, &["messages", mailbox, "--json"]);
    let body = |row: &serde_json::Value| world.ok(store, &["body", row["entry"].as_str().unwrap()]);
    shown.as_array().unwrap().iter().map(body).collect()
}

fn deliver(world: &World, store: &str, arguments: &[&str], message: &str) -> Done {
    world.run_with(store, &[&["deliver"], arguments].concat(), message.as_bytes())
}

#[test]
fn a_message_on_standard_input_is_delivered_with_and_without_a_daemon() {
    let world = people(&[]);
    world.ok("kim", &["mailbox", "create", "Work"]);
    let message = "Subject: x\n\n.\nFrom here\r\n\u{0}\n";
    let try_all = || {
        let quiet = deliver(&world, "kim", &[], message);
        assert_eq!((quiet.code, &quiet.out[..], &quiet.err[..]), (0, "", ""));
        deliver(
            &world,
            "kim",
            &["Work", "--flag", "seen"],
            &format!("From a@b Thu Jan  1 00:00:00 1970\n{message}"),
        )
        .ok();
        deliver(&world, "lee", &["-d", "kim", "-f", "a@b", "--", ""], message).ok();
        deliver(&world, "lee", &["-d", "Kim+Work@example.org"], message).ok();
        let elsewhere = deliver(&world, "kim", &["Nowhere"], message);
        assert_eq!(elsewhere.code, 0);
        assert!(
            elsewhere.err.contains("no mailbox \"Nowhere\"; the message went to \"INBOX\""),
            "{elsewhere:?}"
        );
        let bad = deliver(&world, "kim", &["--", "../x"], message);
        assert_eq!(bad.code, 0);
        assert!(bad.err.starts_with("warning: mailbox name"), "{bad:?}");
        let made = deliver(&world, "kim", &["--create", "--json", "New/Box"], message).ok();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&made).unwrap()["mailbox"], "New/Box");
        let dry = deliver(&world, "kim", &["--dry-run"], message).ok();
        assert_eq!(dry, format!("would deliver a message of {} bytes to mailbox \"INBOX\"\n", message.len()));
    };
    try_all();
    let serve = serve(&world, &[]);
    try_all();
    assert_eq!(serve.stop(), Some(0));
    let with_sender = format!("Return-Path: <a@b>\n{message}");
    let once = [message, &with_sender, message, message];
    assert_eq!(bodies(&world, "kim", "INBOX"), [once, once].concat());
    assert_eq!(bodies(&world, "kim", "Work"), [message; 4]);
    assert_eq!(bodies(&world, "kim", "New/Box"), [message, message]);
    let work = world.json("kim", &["messages", "Work", "--json"]);
    assert!(work.to_string().contains("\\\\Seen"), "{work}");
}

#[test]
fn failed_deliveries_have_the_codes_of_sysexits() {
    let world = people(&[]);
    let fails = || {
        deliver(&world, "kim", &[], "").fails(65, "standard input is empty");
        deliver(&world, "kim", &[], "From a\n").fails(65, "standard input is empty");
        deliver(&world, "kim", &["--bogus"], "x").fails(64, "--bogus");
        deliver(&world, "kim", &["--flag", "a b"], "x").fails(64, "a b");
        deliver(&world, "kim", &["-d", "nobody"], "x").fails(67, "no user \"nobody\"");
        deliver(&world, "nowhere", &[], "x").fails(75, "no replica");
        deliver(&world, "kim", &["--read-only"], "x").fails(64, "writes");
    };
    fails();
    let mut directory = world.command("kim", &["deliver"]);
    let input = std::fs::File::open(world.path("kim")).unwrap();
    let output = directory.stdin(input).output().unwrap();
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    let serve = serve(&world, &[]);
    fails();
    drop(serve);
    std::fs::remove_file(world.path("data/postmerge/users")).unwrap();
    deliver(&world, "kim", &["-d", "kim"], "x").fails(75, "users");
    assert!(bodies(&world, "kim", "INBOX").is_empty());
    // Others keep their codes.
    world.run("kim", &["mailboxes", "--bogus"]).fails(2, "--bogus");
}

#[test]
fn a_daemon_is_found_from_a_poor_environment() {
    let world = people(&[]);
    // The daemon has no runtime directory, as under a system's service manager; the other command has one.
    let mut command = world.command("kim", &["serve", "--offline"]);
    command.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", world.path(""));
    let mut daemon = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = || {
        let mut command = world.command("kim", &["status"]);
        command.env("TMPDIR", world.path("")).output().unwrap().status.code()
    };
    until("the daemon to be found", || status() == Some(0));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn lmtp_answers_for_each_recipient_and_keeps_bytes() {
    let world = people(&["pat"]);
    world.ok("eve", &["init"]);
    world.run_with("eve", &["user", "add", "eve"], b"secret\n").ok();
    world.ok("kim", &["mailbox", "create", "Work"]);
    let serve = serve(&world, &["--lmtp-mode", "660"]);
    let meta = std::fs::metadata(world.path("lmtp")).unwrap();
    assert_eq!((meta.file_type().is_socket(), meta.permissions().mode() & 0o777), (true, 0o660));
    let mut lmtp = Lmtp::connect(&world);
    let text = b"Subject: x\r\n\r\n..dot\r\nbare\n.\nand\r\n\0\r\n";
    let to = [
        "kim@example.org",
        "nobody@example.org",
        "lee",
        "Kim+Work@example.org",
        "kim+Nowhere@x",
        "pat@x",
        "eve@x",
    ];
    let (taken, done) = lmtp.deliver(&to, text);
    assert_eq!(taken, ["250", "550", "250", "250", "250", "250", "451"]);
    assert_eq!(done, ["250"; 5]);
    // Larger than what is held in memory, and in the same connection.
    let large = b"0123456789012345678901234567890123456789\r\n".repeat(100_000);
    assert_eq!(lmtp.deliver(&["lee@example.org"], &large), (vec!["250".into()], vec!["250".into()]));
    assert_eq!(lmtp.deliver(&["lee@example.org"], b""), (vec!["250".into()], vec!["554".into()]));
    // Half a message is none.
    lmtp.send(b"MAIL FROM:<>\r\nRCPT TO:<lee>\r\nDATA\r\nhalf\r\n");
    drop(lmtp);
    let mut idle = Lmtp::connect(&world);
    assert_eq!(serve.stop(), Some(0));
    assert_eq!(idle.codes(1), ["421"]);
    assert!(!world.path("lmtp").exists());
    let whole = "Return-Path: <far@example.org>\r\nSubject: x\r\n\r\n.dot\r\nbare\n.\nand\r\n\0\r\n";
    // Pat's INBOX and that of a detail that is no mailbox are Kim's.
    assert_eq!(bodies(&world, "kim", "INBOX"), [whole; 2]);
    assert_eq!(bodies(&world, "kim", "Work"), [whole]);
    let lee = bodies(&world, "lee", "INBOX");
    assert_eq!((lee.len(), &lee[0][..]), (2, whole));
    assert!(lee[1].as_bytes()["Return-Path: <far@example.org>\r\n".len()..] == large);
}

#[test]
fn who_waits_in_idle_hears_of_a_delivery() {
    let world = people(&[]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _serve = serve(&world, &["--imap", &format!("127.0.0.1:{port}")]);
    let mut imap = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    imap.get_mut().write_all(b"a LOGIN kim secret\r\nb SELECT INBOX\r\nc IDLE\r\n").unwrap();
    let hear = |imap: &mut BufReader<TcpStream>, words: &str| {
        let mut line = String::new();
        while !line.starts_with(words) {
            line.clear();
            assert!(imap.read_line(&mut line).unwrap() > 0, "the connection ended before {words:?}");
        }
    };
    hear(&mut imap, "+ ");
    Lmtp::connect(&world).deliver(&["kim"], b"Subject: 1\r\n");
    hear(&mut imap, "* 1 EXISTS");
    deliver(&world, "kim", &[], "Subject: 2\n").ok();
    hear(&mut imap, "* 2 EXISTS");
}

#[test]
fn peers_hear_of_a_delivery_at_once() {
    let world = people(&[]);
    let listen = ["--listen", "127.0.0.1:0", "--lmtp", "./lmtp"];
    let _kim = world.serve("kim", &listen);
    let ticket = world.ok("kim", &["invite"]);
    world.ok("laptop", &["join", ticket.trim()]);
    let _laptop = world.serve("laptop", &["--listen", "127.0.0.1:0"]);
    Lmtp::connect(&world).deliver(&["kim"], b"Subject: x\r\n");
    // The message is shown first, and its body follows.
    let arrived = || {
        let shown = world.json("laptop", &["messages", "INBOX", "--json"]);
        let entry = shown[0]["entry"].as_str();
        entry.is_some_and(|entry| world.run("laptop", &["body", entry]).code == 0)
    };
    until("the message at the peer", arrived);
    assert_eq!(bodies(&world, "laptop", "INBOX"), ["Return-Path: <far@example.org>\r\nSubject: x\r\n"]);
}

#[test]
fn kill_9_loses_nothing_that_lmtp_confirmed() {
    let world = people(&[]);
    let mut sent = Vec::new();
    for round in 0..3 {
        // The socket that the killed one left is in nobody's way.
        let serve = serve(&world, &[]);
        let mut lmtp = Lmtp::connect(&world);
        for number in 0..5 {
            let text = format!("Subject: {round}/{number}\r\n");
            assert_eq!(lmtp.deliver(&["kim"], text.as_bytes()).1, ["250"]);
            sent.push(format!("Return-Path: <far@example.org>\r\n{text}"));
        }
        serve.kill();
        assert!(world.path("lmtp").exists());
    }
    assert_eq!(bodies(&world, "kim", "INBOX"), sent);
    assert!(world.ok("kim", &["check"]).starts_with("all is well"));
}

#[test]
fn lmtp_listens_only_where_it_may() {
    let world = people(&[]);
    world.run("kim", &["serve", "--offline", "--lmtp", "0.0.0.0:0"]).fails(1, "LMTP has no passwords");
    world.run("kim", &["serve", "--offline", "--lmtp", "lmtp"]).fails(1, "a path with a slash");
    world.run("kim", &["serve", "--offline", "--lmtp", "./x", "--lmtp-mode", "9"]).fails(2, "a mode");
    std::fs::write(world.path("file"), "mine").unwrap();
    world.run("kim", &["serve", "--offline", "--lmtp", "./file"]).fails(1, "no socket");
    assert_eq!(std::fs::read(world.path("file")).unwrap(), b"mine");
    let _serve = serve(&world, &[]);
    world.ok("eve", &["init"]);
    world.run("eve", &["serve", "--offline", "--lmtp", "./lmtp"]).fails(1, "another process listens");
    Lmtp::connect(&world);
}

#[test]
#[ignore = "needs python3"]
fn python_hands_over_mail() {
    let world = people(&[]);
    let serve = serve(&world, &[]);
    let script = r#"
import smtplib, sys
lmtp = smtplib.LMTP(sys.argv[1])
text = b"Subject: x\r\n\r\n.\r\n..two\r\nend\r\n"
# smtplib reads one reply to a message, however many recipients were taken.
lmtp.sendmail("far@example.org", ["lee@example.org"], text)
refused = lmtp.sendmail("far@example.org", ["nobody@example.org", "kim@example.org"], text, ["BODY=8BITMIME"])
assert list(refused) == ["nobody@example.org"] and refused["nobody@example.org"][0] == 550, refused
assert lmtp.has_extn("pipelining") and lmtp.esmtp_features["size"] == str(256 << 20)
assert lmtp.verify("kim")[0] == 252
assert lmtp.noop()[0] == 250
try:
    lmtp.sendmail("", ["nobody@example.org"], b"x")
    sys.exit("nobody has no mailbox")
except smtplib.SMTPRecipientsRefused:
    pass
lmtp.quit()
"#;
    let output = Command::new("python3").arg("-c").arg(script).arg(world.path("lmtp")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(serve);
    let whole = "Return-Path: <far@example.org>\r\nSubject: x\r\n\r\n.\r\n..two\r\nend\r\n";
    assert_eq!(bodies(&world, "kim", "INBOX"), [whole]);
    assert_eq!(bodies(&world, "lee", "INBOX"), [whole]);
}
