//! What a command costs: CPU of everything it started, wall, bytes, memory.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::WaitOptions;

use crate::relay::Relay;

/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS: f64 = 100.0;

/// What one run came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds, user and system, of both ends and all that they started.
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
    pub(crate) bytes: u64,
    /// The most that one process had resident, in MB (10^6).
    pub(crate) resident: f64,
}

impl Cost {
    pub(crate) fn and(self, other: Cost) -> Cost {
        Cost {
            cpu: self.cpu + other.cpu,
            wall: self.wall + other.wall,
            bytes: self.bytes + other.bytes,
            resident: self.resident.max(other.resident),
        }
    }
}

/// Runs a command to its end, and everything that it leaves behind; gives what it printed too.
pub(crate) fn run(command: &mut Command, relay: &Relay, sampled: bool) -> (Cost, String) {
    let (before, start) = (children_cpu(), Instant::now());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a command starts");
    let (pid, over) = (child.id(), AtomicBool::new(false));
    let mut cost = Cost::default();
    let output = std::thread::scope(|scope| {
        let sampler = sampled.then(|| scope.spawn(|| peak(pid, &over)));
        let output = child.wait_with_output().expect("it is our child");
        cost.wall = start.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        cost.resident = sampler.map_or(0.0, |sampler| sampler.join().expect("sampling does not fail"));
        output
    });
    // Orphans are ours now.
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::empty()) {}
    let carried = relay.carried();
    cost.cpu = children_cpu() - before - carried.cpu;
    cost.bytes = carried.bytes;
    // Exit code 2 is dsync's word for what the next run brings.
    assert!(matches!(output.status.code(), Some(0 | 2)), "{command:?} ended with {}", output.status);
    (cost, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// CPU seconds of all children that ended. It counts nanoseconds and shows ticks of 10 ms: sum up runs that take less.
pub(crate) fn children_cpu() -> f64 {
    ticks("self", 13)
}

/// CPU seconds of a process so far.
pub(crate) fn running_cpu(pid: u32) -> f64 {
    ticks(&pid.to_string(), 11)
}

/// Two fields that stand side by side, user and system, in seconds.
fn ticks(pid: &str, first: usize) -> f64 {
    let fields = stat(pid);
    fields.iter().skip(first).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// The fields of a process behind its name: state, parent and so on.
fn stat(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or("").split_whitespace().map(String::from).collect()
}

/// The largest peak of one process among those below `root`, looked at until it is over.
fn peak(root: u32, over: &AtomicBool) -> f64 {
    let mut most: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        most = tree(root).into_iter().filter_map(high_water).fold(most, f64::max);
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat(&format!("{pid}")).get(1).and_then(|field| field.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut at) = (vec![root], 0);
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.remove(&pid).into_iter().flatten());
        at += 1;
    }
    found
}

/// The most that a process ever had resident, in MB.
pub(crate) fn high_water(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1.024e-3)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
