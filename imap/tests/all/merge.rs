//! What a client sees of a merge.

use std::time::Duration;

use postmerge::member::Role;

use crate::client::Client;
use crate::peer::Peer;
use crate::strict::Strict;

const SHARED: &str = "Subject: shared\r\n\r\nbefore the split\r\n";
const HERE: &str = "Subject: here\r\n\r\ndelivered to the first\r\n";
const THERE: &str = "Subject: there\r\n\r\ndelivered to the second\r\n";

/// Two servers that know one message.
fn pair() -> (Peer, Peer) {
    let first = Peer::found();
    first.deliver(SHARED);
    let second = first.invite(Role::Server, 2);
    (first, second)
}

/// A split in which each delivered a message, so that healing burns the lower one of two UIDs. The server whose UID is
/// burned comes first, then its message and the other's.
fn split() -> ((Peer, &'static str), (Peer, &'static str)) {
    let (first, second) = pair();
    first.deliver(HERE);
    second.deliver(THERE);
    match first.uid(HERE) < second.uid(THERE) {
        true => ((first, HERE), (second, THERE)),
        false => ((second, THERE), (first, HERE)),
    }
}

#[test]
fn an_idle_client_hears_of_a_message_that_another_replica_got() {
    let (first, second) = pair();
    let mut client = Strict::login(&first.account, false);
    client.sleep();
    second.deliver(THERE);
    assert!(client.changed().is_empty());
    first.sync(&second);
    assert_eq!(client.changed(), ["* 2 EXISTS"]);
    client.verify(&first);
}

#[test]
fn healing_takes_a_burned_uid_away_and_brings_the_message_under_a_new_one() {
    for qresync in [false, true] {
        let ((burned, text), (other, _)) = split();
        let old = burned.uid(text).unwrap();
        burned.mark(old, "\\Flagged");
        let mut client = Strict::login(&burned.account, qresync);
        assert_eq!((client.uid(2), client.text(old)), (old, text));
        client.sleep();
        burned.sync(&other);
        let gone = if qresync { format!("* VANISHED {old}") } else { "* 2 EXPUNGE".into() };
        assert_eq!(client.changed(), [gone, "* 3 EXISTS".into()]);
        client.verify(&burned);
        let new = burned.uid(text).unwrap();
        assert!(new > old);
        assert_eq!(client.text(new), text);
        assert_eq!(client.cache[&new].flags, Some(["\\Flagged".to_owned()].into()));
    }
}

#[test]
fn a_client_that_was_away_during_the_split_is_told_the_difference_and_no_more() {
    let (first, second) = pair();
    for number in 0..20 {
        first.deliver(&format!("Subject: {number}\r\n\r\nold\r\n"));
    }
    first.sync(&second);
    first.deliver(HERE);
    let mut client = Strict::login(&first.account, true);
    client.verify(&first);
    second.deliver(THERE);
    let old = first.uid(HERE).unwrap();
    first.mark(3, "\\Seen");
    second.mark(4, "\\Flagged");
    second.expunge(5);
    first.sync(&second);
    let mut vanished = vec!["5".to_owned()];
    vanished.extend((first.uid(HERE) != Some(old)).then(|| old.to_string()));
    let told: Vec<String> = client
        .select()
        .into_iter()
        .filter(|line| line.contains("VANISHED") || line.contains("FETCH"))
        .map(|line| line.split(" MODSEQ").next().unwrap().to_owned())
        .collect();
    let expected = [
        format!("* VANISHED (EARLIER) {}", vanished.join(",")),
        "* 3 FETCH (UID 3 FLAGS (\\Seen)".to_owned(),
        "* 4 FETCH (UID 4 FLAGS (\\Flagged)".to_owned(),
    ];
    assert_eq!(told, expected);
    client.verify(&first);
}

#[test]
fn a_client_that_fails_over_misses_nothing() {
    for healed in [false, true] {
        let ((here, text), (there, other)) = split();
        let mut client = Strict::login(&here.account, true);
        client.verify(&here);
        there.mark(1, "\\Answered");
        here.mark(1, "\\Seen");
        if healed {
            here.sync(&there);
        }
        client.roam(&there.account);
        client.verify(&there);
        let texts: Vec<&str> = client.cache.keys().map(|uid| client.text(*uid)).collect();
        assert_eq!(texts.contains(&text), healed);
        assert!(texts.contains(&other));
        here.sync(&there);
        client.verify(&there);
        client.roam(&here.account);
        client.verify(&here);
    }
}

#[test]
fn a_client_that_fails_over_touches_no_message_it_did_not_mean() {
    for healed in [false, true] {
        let ((here, text), (there, other)) = split();
        let uid = here.uid(text).unwrap();
        let mut old = Client::login(&here.account);
        let known = old.ok("SELECT INBOX (CONDSTORE)");
        let code = |name: &str| {
            let line = known.iter().find_map(|line| line.split_once(name)).unwrap().1;
            line.split(']').next().unwrap().to_owned()
        };
        let (validity, modseq) = (code("[UIDVALIDITY "), code("[HIGHESTMODSEQ "));
        if healed {
            here.sync(&there);
        }
        let before = there.inbox();
        let mut client = Client::login(&there.account);
        let selected = client.ok("SELECT INBOX (CONDSTORE)");
        assert!(selected.iter().any(|line| line.contains(&format!("[UIDVALIDITY {validity}]"))));
        // What it did offline: the message that it saw as `uid` is deleted.
        client.ok(&format!("UID STORE {uid} +FLAGS (\\Deleted)"));
        client.ok(&format!("UID EXPUNGE {uid}"));
        client.ok(&format!("UID MOVE {uid} INBOX"));
        let entries = |shown: &[postmerge::uid::Shown]| {
            shown.iter().map(|message| (message.entry, message.keywords.clone())).collect::<Vec<_>>()
        };
        assert_eq!(entries(&there.inbox()), entries(&before), "{uid} is nothing here");
        assert!(there.uid(other).is_some());
        // A mod-sequence of the other server says nothing of what this one did, so nothing is changed by it.
        let all = before.iter().map(|message| message.uid.value().to_string()).collect::<Vec<_>>();
        let (lines, done) = client.command(&format!(
            "UID STORE {} (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT (\\Seen)",
            all.join(",")
        ));
        assert_eq!(lines, Vec::<String>::new());
        let modified = done.split("[MODIFIED ").nth(1).unwrap().split(']').next().unwrap();
        let modified: usize = modified
            .split(',')
            .map(|part| match part.split_once(':') {
                Some((first, last)) => last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1,
                None => 1,
            })
            .sum();
        assert_eq!(modified, all.len());
        assert_eq!(entries(&there.inbox()), entries(&before));
        let rows = client.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})"));
        assert_eq!(rows.len(), all.len(), "{rows:?}");
    }
}

#[test]
fn what_still_has_a_number_does_not_vanish_earlier() {
    let first = Peer::found();
    [SHARED, HERE, THERE].into_iter().for_each(|text| first.deliver(text));
    let mut client = Client::login(&first.account);
    client.ok("ENABLE QRESYNC");
    client.ok("SELECT INBOX");
    let own = first.replica.mailbox(&"INBOX".parse().unwrap()).unwrap().highest_modseq.value();
    first.expunge(1);
    let lines = client.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {own} VANISHED)"));
    assert_eq!(lines, ["* VANISHED 1"]);
    first.expunge(3);
    // A mod-sequence of no history.
    let lines = client.ok("UID FETCH 1:* (UID) (CHANGEDSINCE 1 VANISHED)");
    let told: Vec<&str> = lines.iter().map(|line| line.split(" MODSEQ").next().unwrap()).collect();
    assert_eq!(told, ["* VANISHED (EARLIER) 1,4:2147483648", "* 1 FETCH (UID 2", "* VANISHED 3"]);
}

#[test]
fn a_silent_store_hides_no_flag_of_somebody_else() {
    for qresync in [false, true] {
        let (first, second) = pair();
        let mut client = Strict::login(&first.account, qresync);
        second.mark(1, "\\Flagged");
        first.sync(&second);
        client.store_silent(1, true, "\\Seen");
        client.verify(&first);
    }
}

#[test]
fn a_merge_between_pipelined_commands_shifts_no_number() {
    for qresync in [false, true] {
        let (first, second) = pair();
        first.deliver(HERE);
        first.sync(&second);
        let mut client = Strict::login(&first.account, qresync);
        second.expunge(1);
        second.deliver(THERE);
        let commands = ["UID FETCH 1:* (FLAGS)", "STORE 2 +FLAGS (\\Flagged)", "FETCH 1:2 (UID)"];
        client.pipeline(&commands.map(|command| format!("t {command}")), || first.sync(&second));
        client.verify(&first);
        let flagged: Vec<u32> = first
            .inbox()
            .iter()
            .filter(|message| message.keywords.contains(&"\\Flagged".parse().unwrap()))
            .map(|message| message.uid.value())
            .collect();
        assert_eq!(flagged, [2], "the message that was the second when the client said so");
    }
}

#[test]
fn a_body_that_is_owed_is_waited_for() {
    let (first, second) = pair();
    first.deliver(HERE);
    second.sync_without_bodies(&first);
    let mut client = Client::login(&second.account);
    client.ok("SELECT INBOX");
    assert_eq!(client.ok("FETCH 2 (UID FLAGS)"), ["* 2 FETCH (UID 2 FLAGS ())"]);
    assert_eq!(client.say_bytes(b"t FETCH 1:2 (BODY.PEEK[])\r\n").matches("FETCH").count(), 1);
    assert_eq!(client.changed(), "", "some commit that is not the body");
    second.sync(&first);
    let heard = client.changed();
    assert!(
        heard.starts_with(&format!("* 2 FETCH (BODY[] {{{}}}\r\n{HERE})\r\nt OK", HERE.len())),
        "{heard}"
    );
}

#[test]
fn a_body_that_does_not_come_in_time_is_unavailable() {
    let (first, second) = pair();
    first.deliver(HERE);
    first.deliver(THERE);
    second.sync_without_bodies(&first);
    let mut client = Client::login(&second.account);
    client.ok("SELECT INBOX");
    assert_eq!(client.say_bytes(b"t FETCH 2:3 (BODY.PEEK[])\r\n"), "");
    assert_eq!(client.wait(Duration::from_secs(9)), "");
    // Once for all of them: nobody waits ten seconds for each.
    let heard = client.wait(Duration::from_secs(1));
    assert!(heard.starts_with("t NO [UNAVAILABLE] "), "{heard}");
    assert_eq!(client.ok("FETCH 1 (UID)"), ["* 1 FETCH (UID 1)"]);
}
