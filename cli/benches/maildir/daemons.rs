//! What only daemons do: they hear of a change when it happens, and rest when there is none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::mail::{File, Tree};
use crate::meter::{high_water, median, running_cpu};
use crate::ours::{NAME, Postmerge, wait_until};
use crate::table::{Goal, Table, Unit};

/// Flags that are set one after the other.
const FLAGS: usize = 20;

/// Longest wait for a flag.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves both replicas of a pair that is in step, and measures them.
pub(crate) fn measure(ours: &Postmerge, a: &Tree, b: &Tree, rest: Duration, table: &mut Table) {
    let serving_a = ours.serve("a", ours.address());
    let serving_b = ours.serve("b", "127.0.0.1:0");
    let settled = || ["a", "b"].iter().all(|store| ours.status(store)["in_sync"] == 1);
    wait_until("both daemons to be in sync", settled);
    // Each looks through its Maildir once more when it starts.
    std::thread::sleep(Duration::from_secs(2));
    let traffic = || {
        let peer = &ours.status("a")["peers"][0];
        let sum = |field: &str| peer[field].as_u64().expect("a daemon counts bytes");
        sum("sent_bytes") + sum("received_bytes")
    };
    let before = traffic();
    let (mut waits, pairs) = (Vec::new(), twins(a, b));
    for (here, there) in pairs.into_iter().take(FLAGS) {
        let start = Instant::now();
        let turned = here.turn_flag();
        let expected = there.like(&turned);
        while !expected.exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(expected.exists(), "a flag did not arrive: {}", expected.display());
        waits.push(start.elapsed().as_secs_f64());
        // What comes back, and what a burst would hide.
        std::thread::sleep(Duration::from_millis(250));
    }
    let flag = (traffic() - before) as f64 / FLAGS as f64;
    table.figure(NAME, "one flag, daemons: UDP payload both ways", Unit::Bytes, Goal::Value(250.0), flag);
    table.figure(NAME, "– file to file, p50", Unit::Seconds, Goal::Value(0.2), median(waits));
    let cpu = || running_cpu(serving_a.pid()) + running_cpu(serving_b.pid());
    let (bytes, before) = (traffic(), cpu());
    std::thread::sleep(rest);
    table.figure(NAME, "daemons left alone for a minute: CPU of both", Unit::Seconds, Goal::None, {
        (cpu() - before) * 60.0 / rest.as_secs_f64()
    });
    table.figure(NAME, "– UDP payload: keep-alives", Unit::Bytes, Goal::None, (traffic() - bytes) as f64);
    let peak =
        [&serving_a, &serving_b].iter().filter_map(|daemon| high_water(daemon.pid())).fold(0.0, f64::max);
    table.figure(NAME, "– peak memory of one", Unit::Megabytes, Goal::Value(60.0), peak);
}

/// Messages of the INBOX and their files on both sides; only such as are there once.
fn twins(a: &Tree, b: &Tree) -> Vec<(File, File)> {
    let inbox = |tree: &Tree| {
        let mut found: BTreeMap<u64, Vec<File>> = BTreeMap::new();
        for file in tree.files().into_iter().filter(|file| file.folder().is_empty()) {
            found.entry(file.content()).or_default().push(file);
        }
        found.retain(|_, files| files.len() == 1);
        found
    };
    let mut there = inbox(b);
    let pair = |(content, mut files): (u64, Vec<File>)| Some((files.pop()?, there.remove(&content)?.pop()?));
    inbox(a).into_iter().filter_map(pair).collect()
}
