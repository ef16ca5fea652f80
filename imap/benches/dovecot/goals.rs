//! The goals, each measured on both servers alike.

use std::path::{Path, PathBuf};

use crate::mail::Inbox;
use crate::meter::{Goal, Table, Unit, median, timed};
use crate::servers::Server;

/// What a caching client asks for when it sees a mailbox for the first time.
const FIRST_LOOK: &str = "UID FETCH 1:* (FLAGS ENVELOPE INTERNALDATE RFC822.SIZE BODYSTRUCTURE)";

/// Connections with which the resynchronization is measured: it takes a part of a tick of the CPU clock.
const RESYNCS: usize = 100;

/// How often a run searches, for the same reason.
const SEARCHES: usize = 10;

/// What is needed to start the servers.
pub(crate) struct Bench<'a> {
    pub(crate) work: &'a Path,
    /// The program, if it serves IMAP.
    pub(crate) binary: Option<PathBuf>,
    pub(crate) dovecot: bool,
    pub(crate) runs: usize,
}

/// Ours, then Dovecot's.
struct Pair<T>(Option<T>, Option<T>);

impl<T> Pair<T> {
    fn map<R>(&self, mut act: impl FnMut(&T) -> R) -> Pair<R> {
        Pair(self.0.as_ref().map(&mut act), self.1.as_ref().map(&mut act))
    }
}

impl Bench<'_> {
    fn both(&self, inbox: &Inbox) -> Pair<Server> {
        let ours = self.binary.as_ref().map(|binary| Server::postmerge(binary, self.work, inbox));
        Pair(ours, self.dovecot.then(|| Server::dovecot(self.work, inbox)))
    }

    /// Median of some runs of what gives CPU seconds.
    fn median(&self, mut run: impl FnMut() -> f64) -> f64 {
        median((0..self.runs).map(|_| run()).collect())
    }

    /// Everything that is asked of ordinary mail. `goals` names what is wanted.
    pub(crate) fn mail(&self, table: &mut Table, inbox: &Inbox, wants: impl Fn(&str) -> bool) {
        // The first look of our server is only the first on a store that was just filled.
        let mut first = Vec::new();
        if let (Some(binary), true) = (&self.binary, wants("fetch")) {
            for _ in 1..self.runs {
                first.push(first_look(&Server::postmerge(binary, self.work, inbox), inbox));
            }
        }
        let servers = self.both(inbox);
        // Dovecot's first look fills its cache, and is shown for what it is.
        let cold = servers.map(|server| first_look(server, inbox));
        first.extend(cold.0);
        let n = inbox.messages;
        if wants("fetch") {
            let warm = servers.map(|server| self.median(|| first_look(server, inbox)));
            let what = format!("first look at {n} messages: CPU");
            table.row(&what, Unit::Seconds, Goal::Dovecot(1.0), cold.0.map(|_| median(first)), warm.1);
            table.row("– a later one", Unit::Seconds, Goal::Dovecot(1.0), warm.0, warm.1);
            if let Some(cold) = cold.1 {
                table.note(format!(
                    "Dovecot's first look, which fills its cache: {:.0} ms of CPU.",
                    cold * 1e3
                ));
            }
        }
        if wants("download") {
            self.download(table, &servers, inbox);
        }
        if wants("search") {
            self.search(table, &servers, n);
        }
        // Last, because it changes the mail.
        if wants("store") {
            self.store(table, &servers, n);
        }
    }

    fn download(&self, table: &mut Table, servers: &Pair<Server>, inbox: &Inbox) {
        let mut bytes = Vec::new();
        let figures = servers.map(|server| {
            let mut last = 0;
            let mut runs = Vec::new();
            for _ in 0..self.runs {
                let mut client = server.select();
                let (cpu, wall, answer) =
                    timed(&server.tree, || client.command("UID FETCH 1:* (BODY.PEEK[])"));
                assert_eq!(answer.fetched, inbox.messages, "not every message was downloaded");
                last = answer.literal_bytes;
                runs.push((cpu, wall));
            }
            bytes.push(last);
            let of = |pick: fn(&(f64, f64)) -> f64| median(runs.iter().map(pick).collect());
            (of(|run| run.0), of(|run| run.1))
        });
        if bytes.windows(2).any(|pair| pair[0] != pair[1]) {
            table.note(format!("The downloads differ in size: {bytes:?} bytes."));
        }
        let cpu = figures.map(|figure| figure.0);
        let what = format!("download of {} bodies, {:.1} MB: CPU", inbox.messages, inbox.bytes as f64 / 1e6);
        table.row(&what, Unit::Seconds, Goal::Dovecot(1.2), cpu.0, cpu.1);
        let wall = figures.map(|figure| figure.1);
        table.row("– wall", Unit::Seconds, Goal::None, wall.0, wall.1);
    }

    fn search(&self, table: &mut Table, servers: &Pair<Server>, n: usize) {
        for key in ["SUBJECT 97", "TEXT tomorrow"] {
            let mut found = Vec::new();
            let figures = servers.map(|server| {
                let mut client = server.select();
                let mut hits = 0;
                let cpu = self.median(|| {
                    let search =
                        || (0..SEARCHES).map(|_| client.command(&format!("SEARCH {key}")).found()).last();
                    let (cpu, _, found) = timed(&server.tree, search);
                    hits = found.unwrap_or(0);
                    cpu / SEARCHES as f64
                });
                found.push(hits);
                cpu
            });
            let what = format!("SEARCH {key} over {n} messages: CPU");
            table.row(&what, Unit::Seconds, Goal::Dovecot(1.0), figures.0, figures.1);
            table.note(format!("SEARCH {key} found {found:?}."));
        }
    }

    fn store(&self, table: &mut Table, servers: &Pair<Server>, n: usize) {
        let mut written = None;
        let figures = servers.map(|server| {
            let mut client = server.select();
            self.median(|| {
                let before = server.changes();
                let set = || client.command(&format!("STORE 1:{n} +FLAGS.SILENT (\\Flagged)"));
                let (cpu, _, _) = timed(&server.tree, set);
                written = written.or(server.changes().zip(before).map(|(after, before)| after - before));
                client.command(&format!("STORE 1:{n} -FLAGS.SILENT (\\Flagged)"));
                cpu
            })
        });
        let what = format!("STORE of one flag on {n} messages: CPU");
        table.row(&what, Unit::Seconds, Goal::Dovecot(1.0), figures.0, figures.1);
        table.row(
            "– changes in the document",
            Unit::Count,
            Goal::Exactly(1.0),
            written.map(|n| n as f64),
            None,
        );
    }

    /// `SELECT` of a client that has everything.
    pub(crate) fn resync(&self, table: &mut Table, inbox: &Inbox) {
        let figures = self.both(inbox).map(|server| {
            let mut client = server.connect();
            client.command("ENABLE QRESYNC");
            let known = client.command("SELECT INBOX");
            let code =
                |name: &str| known.code(name).unwrap_or_else(|| panic!("no {name}: {:?}", known.lines));
            let select =
                format!("SELECT INBOX (QRESYNC ({} {}))", code("UIDVALIDITY"), code("HIGHESTMODSEQ"));
            let mut clients: Vec<_> = (0..RESYNCS).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| drop(client.command("ENABLE QRESYNC")));
            let mut walls = Vec::new();
            let (cpu, _, ()) = timed(&server.tree, || {
                for client in &mut clients {
                    let start = std::time::Instant::now();
                    let answer = client.command(&select);
                    walls.push(start.elapsed().as_secs_f64());
                    assert_eq!(answer.fetched, 0, "nothing had changed");
                }
            });
            (cpu / RESYNCS as f64, median(walls))
        });
        let what = format!("SELECT with QRESYNC of {} messages, nothing changed: CPU", inbox.messages);
        let (cpu, wall) = (figures.map(|figure| figure.0), figures.map(|figure| figure.1));
        table.row(&what, Unit::Seconds, Goal::Dovecot(1.0), cpu.0, cpu.1);
        table.row("– wall", Unit::Seconds, Goal::Dovecot(1.0), wall.0, wall.1);
        table.row("– wall, in itself", Unit::Seconds, Goal::Value(0.005), wall.0, wall.1);
    }

    /// Memory of connections that wait for news.
    pub(crate) fn idle(&self, table: &mut Table, inbox: &Inbox, connections: usize) {
        let figures = self.both(inbox).map(|server| {
            // Whatever a first client makes a server load is not the price of one more.
            server.select().idle();
            let before = server.tree.resident();
            let clients: Vec<_> = (0..connections)
                .map(|_| {
                    let mut client = server.select();
                    client.idle();
                    client
                })
                .collect();
            let after = server.tree.resident();
            drop(clients);
            (after - before) / connections as f64
        });
        let what = format!("memory of one of {connections} idle connections to {} messages", inbox.messages);
        table.row(&what, Unit::Kilobytes, Goal::Value(60.0), figures.0, figures.1);
    }
}

/// CPU of it, in seconds, on a new connection.
fn first_look(server: &Server, inbox: &Inbox) -> f64 {
    let mut client = server.select();
    let (cpu, _, answer) = timed(&server.tree, || client.command(FIRST_LOOK));
    assert_eq!(answer.fetched, inbox.messages, "not every message was told");
    cpu
}
