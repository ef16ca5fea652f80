//! What is measured, and the table of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS: f64 = 100.0;

/// A process with all that it started, directly or not.
pub(crate) struct Tree(pub(crate) u32);

impl Tree {
    fn pids(&self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid else { continue };
            if let Some(parent) = stat(pid).get(1).and_then(|field| field.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let (mut found, mut at) = (vec![self.0], 0);
        while let Some(pid) = found.get(at).copied() {
            found.extend(children.remove(&pid).into_iter().flatten());
            at += 1;
        }
        found
    }

    /// CPU seconds so far, user and system, of those that run and of those that ended and were waited for.
    pub(crate) fn cpu(&self) -> f64 {
        self.pids().into_iter().map(|pid| running(pid) + ticks(pid, 13)).sum()
    }

    /// Resident kB (10^3 bytes). What processes share is divided among those that share it.
    pub(crate) fn resident(&self) -> f64 {
        self.pids().into_iter().map(|pid| share(pid).unwrap_or(0.0)).sum()
    }
}

/// CPU seconds of a process that runs. Its own clock counts ticks, of which a hundred processes with little work each
/// hide a second; those of its threads count nanoseconds, and are gone with the thread. Neither is ever too high.
fn running(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = |path: PathBuf| -> Option<f64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    let threads: f64 = threads.filter_map(|thread| nanoseconds(thread.path())).sum();
    ticks(pid, 11).max(threads / 1e9)
}

/// Two fields of `/proc/PID/stat` that stand side by side, user and system, in seconds.
fn ticks(pid: u32, first: usize) -> f64 {
    let fields = stat(pid);
    let ticks = fields.iter().skip(first).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

/// The fields behind the name: state, parent and so on.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or("").split_whitespace().map(String::from).collect()
}

fn share(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1.024)
}

/// CPU seconds of a server and seconds of wall that an act takes, and what it gives.
pub(crate) fn timed<R>(server: &Tree, act: impl FnOnce() -> R) -> (f64, f64, R) {
    let (cpu, start) = (server.cpu(), Instant::now());
    let result = act();
    let wall = start.elapsed().as_secs_f64();
    (server.cpu() - cpu, wall, result)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a figure is written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Seconds,
    Kilobytes,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds if value >= 1.0 => format!("{value:.2} s"),
            Unit::Seconds if value >= 0.1 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds => format!("{:.2} ms", value * 1e3),
            Unit::Kilobytes => format!("{value:.1} kB"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// What a figure of ours must not be above.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// So many times Dovecot's.
    Dovecot(f64),
    Value(f64),
    /// Neither more nor less.
    Exactly(f64),
    None,
}

#[derive(Default)]
pub(crate) struct Table {
    lines: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    /// A figure of ours and Dovecot's; nothing where there was none to measure.
    pub(crate) fn row(
        &mut self,
        what: &str,
        unit: Unit,
        goal: Goal,
        ours: Option<f64>,
        dovecot: Option<f64>,
    ) {
        let (limit, words) = match goal {
            Goal::Exactly(value) => (Some(value), unit.show(value)),
            Goal::Dovecot(1.0) => (dovecot, "≤ Dovecot's".to_owned()),
            Goal::Dovecot(times) => (dovecot.map(|value| value * times), format!("≤ {times} × Dovecot's")),
            Goal::Value(limit) => (Some(limit), format!("≤ {}", unit.show(limit))),
            Goal::None => (None, "–".to_owned()),
        };
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| unit.show(value));
        let reached = match (ours, limit) {
            (Some(ours), Some(limit)) if ours == limit => "yes",
            (Some(ours), Some(limit)) if ours < limit && !matches!(goal, Goal::Exactly(_)) => "yes",
            (Some(_), Some(_)) => "**no**",
            _ => "–",
        };
        let ratio =
            ours.zip(dovecot).map_or("–".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs));
        let (ours, dovecot) = (show(ours), show(dovecot));
        let line = format!("| {what} | {words} | {ours} | {dovecot} | {ratio} | {reached} |");
        eprintln!("{line}");
        self.lines.push(line);
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out =
            String::from("| | goal | postmerge | Dovecot | ratio | reached |\n|---|---|---|---|---|---|\n");
        for line in &self.lines {
            let _ = writeln!(out, "{line}");
        }
        for note in &self.notes {
            let _ = write!(out, "\n* {note}");
        }
        out.push('\n');
        out
    }
}
