//! What two well-behaved replicas reach, however the bytes are cut.

use super::pair::*;
use crate::sync::*;

/// Left has, right has, both have: changes as (count, padding, size of each body).
type Scenario = (&'static str, [(usize, usize, usize); 3]);

const SCENARIOS: &[Scenario] = &[
    ("nothing anywhere", [(0, 0, 0), (0, 0, 0), (0, 0, 0)]),
    ("equal", [(0, 0, 0), (0, 0, 0), (5, 10, 10)]),
    ("left is ahead", [(3, 10, 100), (0, 0, 0), (2, 0, 0)]),
    ("right is ahead", [(0, 0, 0), (3, 10, 100), (2, 0, 0)]),
    ("both went on", [(4, 10, 100), (5, 10, 100), (2, 0, 0)]),
    ("more bodies than may be asked for at once", [(700, 0, 30), (0, 0, 0), (0, 0, 0)]),
    ("more changes than fit a queue", [(40, 100_000, 9), (3, 9, 9), (0, 0, 0)]),
    ("the largest change", [(2, MAX_CHANGE - 41, 5), (0, 0, 0), (0, 0, 0)]),
    ("large bodies", [(2, 0, 500_000), (1, 0, 300_000), (0, 0, 0)]),
];

fn nodes(scenario: &Scenario) -> (Node, Node) {
    let (mut left, mut right) = (Node::new(1), Node::new(2));
    let [ours, theirs, both] = scenario.1;
    for _ in 0..both.0 {
        left.write_as(3, both.1, both.2);
        right.write_as(3, both.1, both.2);
    }
    for _ in 0..ours.0 {
        left.write(ours.1, ours.2);
    }
    for _ in 0..theirs.0 {
        right.write(theirs.1, theirs.2);
    }
    (left, right)
}

#[test]
fn both_have_everything_afterwards() {
    for scenario in SCENARIOS {
        let (left, right) = nodes(scenario);
        let mut pair = Pair::new(left, right);
        pair.settle();
        pair.assert_equal();
        pair.part();
        let mut again = Pair::new(pair.nodes[0].clone(), pair.nodes[1].clone());
        again.settle();
        again.part();
        assert!(again.sent.iter().all(|sent| *sent <= 150), "{}: a no-op took {:?}", scenario.0, again.sent);
    }
}

#[test]
fn any_fragmentation_gives_the_same() {
    for fragment in (1..40).chain([63, 64, 127, 128, 129, 1000, 65_535]) {
        let (left, right) = nodes(&SCENARIOS[4]);
        let mut pair = Pair::new(left, right);
        pair.fragment = fragment;
        pair.settle();
        pair.assert_equal();
        pair.part();
    }
}

#[test]
fn a_cut_anywhere_loses_nothing_that_was_committed() {
    let (left, right) = nodes(&("", [(6, 10, 70_000), (6, 10, 100), (1, 0, 0)]));
    for cut in 0..40 {
        let mut pair = Pair::new(left.clone(), right.clone());
        for _ in 0..cut {
            for from in 0..2 {
                pair.nodes[from].act(&mut pair.sessions[from]).unwrap();
                if let Some(bytes) = pair.sessions[from].poll_send(5_000) {
                    pair.deliver(1 - from, &bytes);
                }
            }
        }
        let mut healed = Pair::new(pair.nodes[0].clone(), pair.nodes[1].clone());
        healed.settle();
        assert_eq!(healed.errors, [None, None], "cut after {cut}");
        assert_eq!(healed.nodes[0].state(), healed.nodes[1].state());
    }
}

#[test]
fn acknowledgements_name_what_was_sent() {
    let (left, right) = nodes(&SCENARIOS[2]);
    // What the right side had told before it does not name again.
    let mut known = right.state().changes;
    let mut pair = Pair::new(left, right);
    let state = pair.nodes[0].state();
    assert!(state.changes.iter().any(|(replica, seq)| known.get(replica) != Some(seq)));
    pair.settle();
    for event in &pair.nodes[0].acknowledged {
        if let Event::Known(changes) = event {
            known.extend(changes);
        }
    }
    let all = state.changes.iter().all(|(replica, seq)| known.get(replica).is_some_and(|known| known >= seq));
    let held = pair.nodes[0].acknowledged.contains(&Event::Held(state.digest));
    assert!(all && held, "{:?}", pair.nodes[0].acknowledged);
}

#[test]
fn changes_are_pushed_and_not_echoed() {
    let (left, right) = nodes(&SCENARIOS[4]);
    let mut pair = Pair::new(left, right);
    pair.settle();
    for round in 0..6 {
        let at = round % 2;
        pair.nodes[at].write(5, 50);
        pair.nodes[at].records.insert(vec![round as u8; 40]);
        pair.sessions[at].offer_members(vec![vec![round as u8; 40]]).unwrap();
        // The receiver will say that it changed too, as a host does that has other peers.
        pair.sessions[0].local_changed();
        pair.sessions[1].local_changed();
        pair.settle();
        pair.sessions[1 - at].local_changed();
        pair.settle();
        pair.assert_equal();
    }
    pair.part();
}

#[test]
fn a_small_change_overtakes_a_large_body() {
    let (left, right) = nodes(&("", [(1, 0, 4_000_000), (0, 0, 0), (0, 0, 0)]));
    let mut pair = Pair::new(left, right);
    while !pair.nodes[1].trace.contains(&"chunk") {
        for from in 0..2 {
            pair.nodes[from].act(&mut pair.sessions[from]).unwrap();
            if let Some(bytes) = pair.sessions[from].poll_send(usize::MAX) {
                pair.deliver(1 - from, &bytes);
            }
        }
    }
    let before = pair.nodes[1].trace.len();
    pair.nodes[0].write(1, 10);
    pair.sessions[0].local_changed();
    pair.settle();
    let chunks_before = pair.nodes[1].trace[before..].iter().take_while(|t| **t != "changes").count();
    assert!(chunks_before <= 2, "{chunks_before} pieces came first");
    pair.assert_equal();
}

#[test]
fn members_come_before_changes() {
    let (mut left, right) = nodes(&SCENARIOS[4]);
    left.records.extend((0..2000u16).map(|n| [&n.to_be_bytes()[..], &[1; 300]].concat()));
    let mut pair = Pair::new(left, right);
    pair.settle();
    pair.assert_equal();
}

#[test]
fn a_guest_joins_and_goes_on_in_the_same_session() {
    let (_, mut right) = nodes(&SCENARIOS[3]);
    right.keys.remove(&replica(1));
    let mut left = Node::new(1);
    left.guest = true;
    left.records.clear();
    let mut pair = Pair::new(left, right);
    pair.settle();
    pair.assert_equal();
    assert!(pair.nodes[0].records.contains(key(1).public().as_bytes().as_slice()));
    pair.part();
}

#[test]
fn a_missing_body_stops_nothing() {
    let (mut left, right) = nodes(&SCENARIOS[2]);
    let gone = left.write(0, 3);
    left.bodies.remove(&gone);
    let mut pair = Pair::new(left, right);
    pair.settle();
    assert!(pair.nodes[1].trace.contains(&"missing"));
    pair.assert_equal();
}

#[test]
fn a_change_made_during_the_hello_is_pushed() {
    let (left, right) = nodes(&SCENARIOS[1]);
    let mut pair = Pair::new(left, right);
    pair.nodes[0].write(1, 1);
    pair.sessions[0].local_changed();
    pair.settle();
    pair.assert_equal();
}

#[test]
fn what_comes_after_our_goodbye_is_dropped() {
    let (left, right) = nodes(&SCENARIOS[1]);
    let mut pair = Pair::new(left, right);
    pair.settle();
    pair.nodes[1].write(1, 1);
    pair.sessions[1].local_changed();
    pair.sessions[0].bye();
    pair.settle();
    assert_eq!(pair.errors, [None, None]);
    assert!(pair.sessions.iter().all(Session::is_finished));
}
