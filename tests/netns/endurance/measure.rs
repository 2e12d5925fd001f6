//! What is there when all is quiet, and whether it grows.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use acmegate::firewall::message::Reply;
use acmegate::gate::window::Opening;
use serde_json::Value;

use super::day::{Day, SOON};
use crate::kernel::nft;
use crate::lab::wait_for;

/// The processes, in the order of the table.
const PARTS: [&str; 4] = ["front", "enforcer", "runner", "historian"];
/// What is never called growth, of one process: a leak of 100 octets a window is more than that in the part of
/// 2,000 windows that is judged.
const FLAT_KB: f64 = 64.0;
/// What an opening takes in front and enforcer for the hour in which it counts for the budget: all of these minutes, and
/// `[budget] per_hour` bounds it. It stands in the book and in a copy that is being changed; and each time the front asks
/// for the book, in the list of replies on either side.
const OPENING_BYTES: usize = 2 * size_of::<Opening>() + 2 * size_of::<Reply>();
/// Of how many looks a straight line says something.
const ENOUGH: usize = 20;
/// What a process may grow by where there are fewer: it is not warm then, neither SQLite's cache nor the allocator's
/// share of each thread. That finds a leak of a whole answer or list, and no small one.
const MAX_KB: u64 = 8 * 1024;
/// The sets that let something in, or end it, by how their names begin.
const OPENING: &[&str] = &["window", "grace", "lease", "entrance"];
/// Those that only remember, and for how many elements there is room: openings of an hour and the time of 32 names
/// and of all, for two spans; who came is forgotten after half a minute.
const REMEMBERING: &[&str] = &["budget", "usage", "seen", "reached", "trace"];
const MAX_REMEMBERED: usize = 4096 + 1024;
/// Who came.
pub const SOURCES: &[&str] = &["seen", "reached", "trace"];
/// How large the history may become, by the configuration, with what SQLite keeps beside it.
const MAX_HISTORY_BYTES: u64 = 8 * 1024 * 1024;

/// One process.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Its share of what is in memory.
    pss_kb: u64,
    /// What it has there for itself alone: what a leak adds to.
    own_kb: u64,
    descriptors: usize,
    threads: usize,
    children: usize,
}

/// A number of a process.
type Count = fn(&Part) -> usize;

/// What of it can be counted.
const COUNTS: [(&str, Count); 3] = [
    ("descriptors", |part| part.descriptors),
    ("threads", |part| part.threads),
    ("children", |part| part.children),
];

/// What was there in one quiet moment.
#[derive(Clone, Debug)]
pub struct Sample {
    windows: usize,
    parts: BTreeMap<&'static str, Part>,
    /// What opens, or ends, anything.
    elements: usize,
    /// What is remembered of windows that were: budget, usage, and who came.
    remembered: usize,
    /// Of this host, but for listeners and those that only wait for their last packets.
    sockets: usize,
    /// In the runtime directory and in the state directory.
    files: usize,
    history_bytes: u64,
    records: u64,
}

impl Sample {
    /// Waits until nothing is open, and looks.
    pub fn take(day: &Day) -> Self {
        let quiet = || {
            let status = day.status();
            let is_quiet = status.leases.is_empty() && status.armed.is_empty();
            (is_quiet && elements(OPENING) == 0 && sockets() == 0).then_some(status)
        };
        let status = wait_for(SOON, "all is quiet", quiet);
        let history = status.history.expect("a history");
        let daemon = &day.daemon;
        let parts = PARTS.into_iter().zip(pids(day).map(part)).collect();
        let directories = [daemon.runtime_dir(), daemon.state_dir().to_owned()];
        Self {
            windows: day.windows,
            parts,
            elements: elements(OPENING),
            remembered: elements(REMEMBERING),
            sockets: sockets(),
            files: directories.iter().map(|at| files(Path::new(at))).sum(),
            history_bytes: history.bytes,
            records: history.records,
        }
    }
}

fn pids(day: &Day) -> [u32; 4] {
    let daemon = &day.daemon;
    [
        daemon.front(),
        daemon.enforcer(),
        daemon.runner(),
        daemon.historian(),
    ]
}

fn part(pid: u32) -> Part {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let memory = read("smaps_rollup");
    let kb = |field: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {field} in {memory}"))
    };
    let entries = |name: &str| {
        let entries = fs::read_dir(format!("/proc/{pid}/{name}")).expect("our own process");
        entries.flatten().map(|entry| entry.file_name())
    };
    let threads: Vec<_> = entries("task").collect();
    let children = threads.iter().map(|thread| {
        let thread = thread.to_string_lossy();
        // A thread may have ended meanwhile, and its children are another one's then.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"));
        children.unwrap_or_default().split_whitespace().count()
    });
    Part {
        pss_kb: kb("Pss:"),
        own_kb: kb("Anonymous:"),
        descriptors: entries("fd").count(),
        children: children.sum(),
        threads: threads.len(),
    }
}

/// How many elements the sets of our table have whose names begin so.
pub fn elements(names: &[&str]) -> usize {
    let listed: Value = serde_json::from_str(&nft(&["-j", "list", "ruleset"])).expect("JSON");
    let objects = listed["nftables"].as_array().expect("a list");
    let sets = objects.iter().filter_map(|object| object.get("set"));
    let ours = sets.filter(|set| set["table"] == "acmegate");
    let meant = ours.filter(|set| {
        let name = set["name"].as_str().unwrap_or_default();
        names.iter().any(|begin| name.starts_with(begin))
    });
    meant
        .map(|set| set["elem"].as_array().map_or(0, Vec::len))
        .sum()
}

/// TCP sockets that are neither listeners nor only waiting for late packets: `sl local remote st …`.
fn sockets() -> usize {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| {
        fs::read_to_string(format!("/proc/thread-self/net/{table}")).expect("proc(5)")
    });
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let states = lines.filter_map(|line| line.split_whitespace().nth(3));
    states
        .filter(|state| ![TIME_WAIT, LISTEN].contains(state))
        .count()
}

fn files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("a directory of the daemon's");
    let counts = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => 1,
    });
    counts.sum()
}

/// The samples, a line each.
pub fn table(samples: &[Sample]) -> String {
    let mut text = "windows".to_owned();
    for part in PARTS {
        let _ = write!(text, " | {part:>9} pss own kB fd thr ch");
    }
    text += " | elem remembered sock files | records history kB\n";
    for sample in samples {
        let _ = write!(text, "{:>7}", sample.windows);
        for name in PARTS {
            let part = sample.parts[name];
            let (descriptors, threads) = (part.descriptors, part.threads);
            let _ = write!(
                text,
                " | {:>13} {:>6} {descriptors:>2} {threads:>3} {:>2}",
                part.pss_kb, part.own_kb, part.children
            );
        }
        let kb = sample.history_bytes / 1024;
        let _ = writeln!(
            text,
            " | {:>4} {:>10} {:>4} {:>5} | {:>7} {kb:>10}",
            sample.elements, sample.remembered, sample.sockets, sample.files, sample.records
        );
    }
    text
}

/// Waits until no process has more of anything that can be counted than at the look when it had least: threads and
/// descriptors that are only kept for a while are let go of within seconds.
#[track_caller]
pub fn come_back(day: &Day, samples: &[Sample]) {
    for (name, pid) in PARTS.into_iter().zip(pids(day)) {
        let least = |of: Count| {
            let counts = samples.iter().map(|sample| of(&sample.parts[name]));
            counts.min().unwrap_or_default()
        };
        for (what, of) in COUNTS {
            let what = format!("no more {what} of the {name} than {}", least(of));
            wait_for(SOON, &what, || (of(&part(pid)) <= least(of)).then_some(()));
        }
    }
}

/// Judges the looks at one life, all of them after it got warm, and says by which numbers.
///
/// Memory is flat if what a straight line through the second half rises by, from its beginning to its
/// end, is less than three standard errors of that line, which is what the allocator's own coming and
/// going explains, or than [`FLAT_KB`]; of front and enforcer without what they remember of an hour's
/// openings.
#[track_caller]
pub fn judge(samples: &[Sample]) -> Vec<String> {
    let (first, second) = samples.split_at(samples.len() / 2);
    for sample in samples {
        assert_eq!((sample.elements, sample.sockets), (0, 0), "{sample:?}");
        assert!(sample.remembered <= MAX_REMEMBERED, "{sample:?}");
        assert!(sample.history_bytes <= MAX_HISTORY_BYTES, "{sample:?}");
        assert_eq!(sample.files, samples[0].files, "{sample:?}");
    }
    // What holds openings doubles when it is full (at 2,048 it takes 190 kB at once): at the end there may be room for twice
    // as many, at the beginning for just as many.
    let openings = (2 * second[second.len() - 1].remembered).saturating_sub(second[0].remembered);
    let by_openings = (openings * OPENING_BYTES) as f64 / 1024.0;
    let mut told = vec![format!(
        "of {by_openings:.0} kB, at most, that openings of the last hour take"
    )];
    for name in PARTS {
        let own_kb = |sample: &Sample| sample.parts[name].own_kb;
        if samples.len() < ENOUGH {
            let (before, after) = (own_kb(&first[0]), own_kb(&second[second.len() - 1]));
            assert!(after < before + MAX_KB, "{name}: {before} kB, then {after}");
            continue;
        }
        let points: Vec<_> = second
            .iter()
            .map(|sample| (sample.windows as f64, own_kb(sample) as f64))
            .collect();
        let (rise, error) = line(&points);
        told.push(format!(
            "{name}: {rise:+.0} kB over the second half by a straight line, whose standard error is {error:.0} kB"
        ));
        let allowed = match name {
            "front" | "enforcer" => by_openings,
            _ => 0.0,
        };
        assert!(rise < allowed + FLAT_KB.max(3.0 * error), "{told:?}");
    }
    told
}

/// By how much a least-squares line through these points rises from the first to the last, and the standard
/// error of that; no two points say anything of an error.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let product: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let slope = product / square;
    let rest: f64 = points
        .iter()
        .map(|point| (point.1 - y - slope * (point.0 - x)).powi(2))
        .sum();
    let length = points[points.len() - 1].0 - points[0].0;
    let error = (rest / (count - 2.0).max(1.0) / square).sqrt();
    (slope * length, error * length)
}
