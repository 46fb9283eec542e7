//! Random inputs for the pure parsers and writers, by a plain seeded loop: `make fuzz-pure SECONDS=30`. The seed is
//! printed; `BEMI_FUZZ_SEED` repeats one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target fails by a panic")]
mod recording;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// Longest input, in bytes.
const LONGEST: usize = 400;

/// A small generator of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    }
}

/// An input: words one after another, or one from before with a few changes.
fn input(random: &mut Random, (_, _, first, words): &Target, kept: &[Vec<u8>]) -> Vec<u8> {
    let mut input = match random.below(4) {
        0 => Vec::new(),
        1 => first[random.below(first.len())].as_bytes().to_vec(),
        _ => kept.get(random.below(kept.len())).cloned().unwrap_or_default(),
    };
    for _ in 0..1 + random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => input.insert(at, random.below(256) as u8),
            1 if at < input.len() => {
                input.remove(at);
            }
            2 if at < input.len() => {
                let end = at + random.below(input.len() - at + 1);
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            3 => input.truncate(at),
            _ => {
                let word = words[random.below(words.len())].as_bytes();
                input.splice(at..at, word.iter().copied());
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// Runs a target for a time; gives the number of inputs, or the one that failed.
fn run(target: &Target, seed: u64, time: Duration) -> Result<u64, Vec<u8>> {
    let mut random = Random(seed | 1);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        for _ in 0..100 {
            let input = input(&mut random, target, &kept);
            if catch_unwind(AssertUnwindSafe(|| target.1(&input))).is_err() {
                return Err(input);
            }
            count += 1;
            if kept.len() < 1000 {
                kept.push(input);
            } else {
                let place = random.below(1000);
                kept[place] = input;
            }
        }
    }
    Ok(count)
}

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = number("BEMI_FUZZ_SEED").unwrap_or(clock);
    let time = Duration::from_secs(number("BEMI_FUZZ_SECONDS").unwrap_or(30));
    println!("seed {seed}, {} s for each target", time.as_secs());
    let mut is_well = true;
    // `BEMI_FUZZ_TARGET` runs those with this in their names.
    let chosen = std::env::var("BEMI_FUZZ_TARGET").unwrap_or_default();
    let targets: Vec<Target> =
        TARGETS.iter().chain(recording::TARGETS).copied().filter(|target| target.0.contains(&chosen)).collect();
    for pair in targets.chunks(2) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = pair.iter().map(|target| scope.spawn(move || run(target, seed, time))).collect();
            threads.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
        });
        for ((name, ..), result) in pair.iter().zip(results) {
            match result {
                Ok(count) => println!("{name}: {count} inputs"),
                Err(input) => {
                    is_well = false;
                    println!("{name}: FAILED with {:?} (seed {seed})", String::from_utf8_lossy(&input));
                    println!("{name}: its bytes are {input:?}");
                }
            }
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
