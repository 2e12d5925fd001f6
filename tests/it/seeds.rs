//! The fuzz targets, fed with their seeds: the properties hold, and the seeds still reach what they
//! were written for. `fuzz/run` feeds them from a fuzzer.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn names(name: &str) -> BTreeSet<String> {
    fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// A small generator (xorshift64*), so that a failure comes back with the same numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let targets: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
}

#[test]
fn the_properties_hold_for_every_seed_and_for_changed_ones() {
    for (name, target) in targets::TARGETS {
        for entry in fs::read_dir(folder("seeds").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let seed = fs::read(&path).unwrap();
            target(&seed);
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
            for _ in 0..200 {
                let mut bytes = seed.clone();
                for _ in 0..=numbers.below(3) {
                    let at = numbers.below(bytes.len() + 1);
                    let byte = numbers.below(256) as u8;
                    match numbers.below(4) {
                        0 if at < bytes.len() => bytes[at] = byte,
                        1 if at < bytes.len() => drop(bytes.remove(at)),
                        2 => bytes.truncate(at),
                        _ => bytes.insert(at, byte),
                    }
                }
                target(&bytes);
            }
        }
    }
}
