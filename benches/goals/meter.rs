//! What is measured: CPU, heap, resident memory, time; and the table of it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Seconds of CPU that this process has used, all threads, user and system.
pub(crate) fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Seconds of CPU of the children that ended, in ticks of 10 ms.
pub(crate) fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// What an act costs in CPU seconds, and what it gives.
pub(crate) fn timed<R>(act: impl FnOnce() -> R) -> (f64, R) {
    let start = cpu();
    let result = act();
    (cpu() - start, result)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The most memory that this process ever had resident, in MB (10^6).
pub(crate) fn peak_resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

/// Bytes of all files below a directory.
pub(crate) fn tree_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => tree_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// One write of 256 bytes and its fsync, in seconds of wall.
pub(crate) struct FsyncProbe(std::fs::File);

impl FsyncProbe {
    pub(crate) fn new(dir: &Path) -> FsyncProbe {
        FsyncProbe(std::fs::File::create(dir.join("fsync-probe")).expect("the work directory takes files"))
    }

    pub(crate) fn once(&mut self) -> f64 {
        use std::io::Write;
        let start = Instant::now();
        self.0.write_all(&[7; 256]).and_then(|()| self.0.sync_data()).expect("the disk takes a write");
        start.elapsed().as_secs_f64()
    }
}

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Micros,
    Bytes,
    Megabytes,
    Share,
    Count,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds if value >= 1.0 => format!("{value:.2} s"),
            Unit::Seconds if value >= 0.02 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds => format!("{:.2} ms", value * 1e3),
            Unit::Micros => format!("{value:.1} µs"),
            Unit::Bytes if value >= 10_000.0 => format!("{:.1} kB", value / 1e3),
            Unit::Bytes if value.fract() == 0.0 => format!("{value:.0} B"),
            Unit::Bytes => format!("{value:.1} B"),
            Unit::Megabytes => format!("{value:.1} MB"),
            Unit::Share => format!("{value:.3}"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// One line of the table. A figure reaches its goal if it is not above it.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    /// Nothing for a figure that has no goal.
    pub(crate) goal: Option<f64>,
    pub(crate) measured: f64,
    /// What the machine itself needs, and for what.
    pub(crate) floor: Option<(f64, String)>,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

impl Table {
    pub(crate) fn row(&mut self, what: &str, unit: Unit, goal: impl Into<Option<f64>>, measured: f64) {
        self.push(Row { what: what.into(), unit, goal: goal.into(), measured, floor: None });
    }

    pub(crate) fn beside(
        &mut self,
        what: &str,
        unit: Unit,
        goal: impl Into<Option<f64>>,
        measured: f64,
        floor: f64,
        of: &str,
    ) {
        let floor = Some((floor, of.into()));
        self.push(Row { what: what.into(), unit, goal: goal.into(), measured, floor });
    }

    fn push(&mut self, row: Row) {
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("  {note}");
        self.notes.push(note);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::from(
            "| | goal | measured | floor of this machine | measured / floor | reached |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        for note in &self.notes {
            let _ = write!(out, "\n* {note}");
        }
        out.push('\n');
        out
    }
}

fn line(row: &Row) -> String {
    let goal = row.goal.map_or("–".into(), |goal| format!("≤ {}", row.unit.show(goal)));
    let reached = row.goal.map_or("–", |goal| if row.measured <= goal { "yes" } else { "**no**" });
    let (floor, ratio) = match &row.floor {
        Some((floor, of)) => {
            (format!("{} ({of})", row.unit.show(*floor)), format!("{:.2}", row.measured / floor))
        }
        None => ("–".into(), "–".into()),
    };
    format!("| {} | {goal} | {} | {floor} | {ratio} | {reached} |", row.what, row.unit.show(row.measured))
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes32(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for part in out.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        out
    }

    /// Mostly small, sometimes large: as mail is.
    pub(crate) fn size(&mut self, typical: f64) -> usize {
        let uniform: f64 = (0..6).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (typical * ((uniform - 3.0) * 1.3).exp()) as usize
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}
