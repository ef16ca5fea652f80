//! The same work for everybody, and what it costs.

use std::path::Path;
use std::time::Duration;

use crate::mail::{Tree, change};
use crate::meter::{Cost, median, run};
use crate::peers::Peer;
use crate::relay::Relay;
use crate::table::{Goal, Table, Unit};
use crate::{Options, daemons};

/// Between a change and the next sync: Dovecot tells changes by a time in seconds.
const PAUSE: Duration = Duration::from_millis(1200);

/// The round trip of a link between cities.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// What one peer is asked.
struct Work<'a> {
    peer: Box<dyn Peer>,
    dir: &'a Path,
    table: &'a mut Table,
    a: Tree,
    b: Tree,
}

pub(crate) fn measure(
    mut peer: Box<dyn Peer>,
    dir: &Path,
    mail: &Tree,
    options: &Options,
    table: &mut Table,
) {
    let wants = |goal: &str| options.only.iter().any(|only| only == goal);
    let (a, b) = peer.prepare(dir, mail);
    let mut work = Work { peer, dir, table, a, b };
    work.first(mail);
    if wants("noop") {
        work.noop(options.noops);
    }
    if wants("flag") {
        work.flag();
    }
    if wants("mixed") {
        work.mixed(options.rounds);
    }
    if wants("daemons")
        && let Some(ours) = work.peer.ours()
    {
        daemons::measure(ours, &work.a, &work.b, options.rest, work.table);
    }
}

impl Work<'_> {
    fn figure(&mut self, what: &'static str, unit: Unit, goal: Goal, figure: f64) {
        self.table.figure(self.peer.name(), what, unit, goal, figure);
    }

    /// One sync, over a wire that counts.
    fn sync(&mut self, round_trip: Duration) -> Cost {
        let relay = Relay::new(self.dir, round_trip);
        let commands = self.peer.sync(&relay.prefix());
        self.run(commands, &relay)
    }

    fn run(&mut self, commands: Vec<std::process::Command>, relay: &Relay) -> Cost {
        let mut sum = Cost::default();
        for mut command in commands {
            let (cost, out) = run(&mut command, relay, true);
            self.peer.printed(&out);
            sum = sum.and(cost);
        }
        sum
    }

    fn first(&mut self, mail: &Tree) {
        let (messages, bytes) = mail.count();
        let relay = Relay::new(self.dir, Duration::ZERO);
        let commands = self.peer.first(&relay.prefix());
        let cost = self.run(commands, &relay);
        self.figure(
            "first sync: CPU a message",
            Unit::Micros,
            Goal::Value(100e-6),
            cost.cpu / messages as f64,
        );
        self.figure("– bytes / mail", Unit::Share, Goal::Value(0.45), cost.bytes as f64 / bytes as f64);
        self.figure("– wall", Unit::Seconds, Goal::None, cost.wall);
        self.figure("– peak memory of one process", Unit::Megabytes, Goal::Value(60.0), cost.resident);
        self.check("the first sync");
        // dsync does not rest after its first run; nobody else minds.
        self.sync(Duration::ZERO);
    }

    fn noop(&mut self, runs: u32) {
        let mut sum = Cost::default();
        let (mut walls, mut bytes) = (Vec::new(), 0);
        for _ in 0..runs {
            let cost = self.sync(Duration::ZERO);
            walls.push(cost.wall);
            bytes = cost.bytes;
            sum = sum.and(cost);
        }
        self.figure("nothing changed: CPU", Unit::Seconds, Goal::Value(0.022), sum.cpu / f64::from(runs));
        self.figure("– wall", Unit::Seconds, Goal::None, median(walls));
        self.figure("– bytes", Unit::Bytes, Goal::None, bytes as f64);
        let walls = (0..3).map(|_| self.sync(ROUND_TRIP).wall).collect();
        self.figure("– wall at a round trip of 50 ms", Unit::Seconds, Goal::Value(0.16), median(walls));
    }

    fn flag(&mut self) {
        let file = self.a.files().swap_remove(0);
        file.turn_flag();
        assert!(!file.is_there(), "a flag renames the file");
        self.peer.changed();
        std::thread::sleep(PAUSE);
        let cost = self.sync(Duration::ZERO);
        self.figure("one flag, one shot: bytes", Unit::Bytes, Goal::None, cost.bytes as f64);
        self.check("one flag");
    }

    fn mixed(&mut self, rounds: u32) {
        let (mut sum, mut new) = (Cost::default(), 0);
        for round in 0..rounds as usize {
            let turns = 2 * rounds as usize;
            new += change(&self.a, 2 * round, turns);
            if self.peer.both_ways() {
                new += change(&self.b, 2 * round + 1, turns);
            }
            self.peer.changed();
            std::thread::sleep(PAUSE);
            sum = sum.and(self.sync(Duration::ZERO));
            self.check("the mixed changes");
        }
        let rounds = f64::from(rounds);
        self.figure("mixed changes: CPU", Unit::Seconds, Goal::Best, sum.cpu / rounds);
        let beyond = (sum.bytes as f64 - new as f64) / rounds;
        self.figure("– bytes beyond the new bodies", Unit::Bytes, Goal::Value(20_000.0), beyond);
        self.figure("– wall", Unit::Seconds, Goal::None, sum.wall / rounds);
    }

    /// Whether both sides are the same. We have to be right to the byte.
    fn check(&mut self, after: &str) {
        let ours = self.peer.ours().is_some();
        if self.peer.name() == "offlineimap" {
            // Its directories have other names.
            return;
        }
        let differences = self.a.differences(&self.b, true);
        assert!(!ours || differences == 0, "{differences} messages differ after {after}");
        if differences > 0 {
            let flags = self.a.differences(&self.b, false);
            let name = self.peer.name();
            self.table.note(format!(
                "{name}, after {after}: the sides differ in {differences} messages, without a look at content in {flags}."
            ));
        }
    }
}
