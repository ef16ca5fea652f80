//! Conversations with an IMAP server, one file a case, by the RFC that says what must happen. `script` has the format.
//!
//! All are played to our own session. `cargo test -p postmerge-imap --test transcripts -- --ignored dovecot` plays those to a Dovecot that it can do;
//! `IMAP_TEST_ADDR=HOST:PORT IMAP_TEST_USER=u%d IMAP_TEST_PASSWORD=p ... -- --ignored address` plays all to any server.
//! Each case wants an account without mail: `%d` becomes its number. `IMAP_TEST_ONLY` picks files by a part of their path.

#![allow(clippy::disallowed_methods)] // a test of servers reads the environment and the file system

#[path = "../support/dovecot.rs"]
mod daemon;
mod pattern;
mod run;
mod script;
#[path = "../support/talk.rs"]
mod talk;
mod tcp;
mod wired;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::daemon::{Dovecot, PASSWORD};
use crate::run::run;
use crate::script::Script;

/// All cases, by their path below this directory.
fn scripts() -> BTreeMap<PathBuf, Script> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let list = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let files = list(&root).into_iter().filter(|path| path.is_dir()).flat_map(|dir| list(&dir));
    let parsed = files.map(|path| {
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap());
        let script = script.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.strip_prefix(&root).unwrap().to_owned(), script)
    });
    parsed.collect()
}

/// Plays all cases that fit a server and wants none to fail.
fn play(server: &str, address: &str, user: &str, password: &str) {
    play_with(server, |script, number| {
        let user = user.replace("%d", &number.to_string());
        let mut sessions = tcp::Sessions::new(address);
        run(script, (&user, password), &mut |session, bytes| sessions.exchange(session, bytes))
    });
}

/// Plays all cases that fit a server, each with its number.
fn play_with(server: &str, play: impl Fn(&Script, usize) -> Result<(), String>) {
    let only = std::env::var("IMAP_TEST_ONLY").unwrap_or_default();
    let (mut played, mut failures) = (0, Vec::new());
    for (number, (path, script)) in scripts().into_iter().enumerate() {
        let path = path.display().to_string();
        if script.unfit.iter().any(|unfit| unfit == server) || !path.contains(&only) {
            continue;
        }
        played += 1;
        if let Err(error) = play(&script, number) {
            failures.push(format!("{path} {error}"));
        }
    }
    assert!(failures.is_empty(), "{} of {played} failed\n{}", failures.len(), failures.join("\n"));
    assert!(played > 0, "no case was played");
}

#[test]
#[ignore = "needs dovecot"]
fn dovecot_agrees() {
    let uses = "auth_failure_delay = 0\nmail_max_userip_connections = 0\nmailbox_idle_check_interval = 1s\n";
    let dovecot = Dovecot::start(&std::env::temp_dir(), uses);
    play("dovecot", &dovecot.address(), "user%d", PASSWORD);
}

#[test]
#[ignore = "needs IMAP_TEST_ADDR"]
fn the_server_at_an_address_agrees() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    play("", &variable("IMAP_TEST_ADDR"), &variable("IMAP_TEST_USER"), &variable("IMAP_TEST_PASSWORD"));
}

#[test]
fn every_case() {
    assert!(scripts().len() >= 41);
    play_with("postmerge", |script, _| {
        let mut sessions = wired::Sessions::new();
        run(script, ("kim", "secret"), &mut |session, bytes| sessions.exchange(session, bytes))
    });
}

/// Plays a case of three lines to a server that gives the same answer to each command.
fn against(expected: &str, answer: &str) -> Result<(), String> {
    let script = Script::parse(&format!("C: a1 NOOP\n{expected}")).unwrap();
    let mut replies = vec![answer.to_owned(), "* PREAUTH hello\r\n".to_owned()];
    // The greeting is asked for, then the command is sent, whose answer comes when it is waited for.
    run(&script, ("u", "p"), &mut |_, bytes| match bytes {
        b"" => replies.pop().unwrap_or_default().into_bytes(),
        _ => Vec::new(),
    })
}

#[test]
fn a_case_can_fail() {
    let expected = "S* * 1 EXISTS\nS* * 1 RECENT\nS? * OK ...\nS: a1 OK ...\n";
    let good = "* 1 RECENT\r\n* OK x\r\n* 1 EXISTS\r\na1 OK done\r\n";
    assert_eq!(against(expected, good), Ok(()));
    for (bad, why) in [
        ("* 1 RECENT\r\na1 OK done\r\n* 1 EXISTS\r\n", "got\n    a1 OK done"),
        ("* 1 RECENT\r\n* 1 EXISTS\r\n", "got nothing"),
        ("* 1 RECENT\r\n* 1 EXISTS\r\n* 2 EXISTS\r\na1 OK done\r\n", "got\n    * 2 EXISTS"),
        ("* 1 RECENT\r\n* 1 EXISTS\r\na1 NO\r\n", "got\n    a1 NO"),
        ("* 1 RECENT\r\n* 1 EXISTS\r\na1 OK\r\n", "got\n    a1 OK"),
        ("* 1 RECENT\r\n* 1 EXISTS\r\na1 OK done\r\n* BYE\r\n", "also said \"* BYE"),
    ] {
        let error = against(expected, bad).unwrap_err();
        assert!(error.contains(why), "{bad:?}: {error}");
    }
}
