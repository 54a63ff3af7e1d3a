//! Throws changed files at a target, so many times.
//!
//! **Invariant:** whatever goes wrong is told with the target's name, the seed, the number of the run and
//! the bytes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::coverage::Reached;
use super::mutate::changed;
use super::targets::Target;

/// What takes longer than this for a few bytes does not end.
const WITHIN: Duration = Duration::from_secs(20);
/// Files that are kept because they reached new code; more of them are not looked at often enough.
const MOST_KEPT: usize = 4096;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Files thrown.
    pub executions: u64,
    /// Files that were taken as what they should be.
    pub taken: u64,
    /// The largest piece of memory asked for at once, in bytes.
    pub largest: usize,
    /// The longest run.
    pub longest: Duration,
    /// Counters reached, of all; nothing in a program that does not count.
    pub reached: Option<(usize, usize)>,
    /// Files kept because they reached new code.
    pub kept: usize,
}

/// Throws `executions` files at the target. `largest` runs a function and says the largest piece of
/// memory that it asked for.
///
/// # Panics
/// The target does, or takes memory out of proportion, or does not come back: with the bytes.
pub fn drive(
    target: &Target,
    executions: u64,
    seed: u64,
    largest: impl Fn(&mut dyn FnMut()) -> usize,
) -> Report {
    let mut files = (target.seeds)();
    let whole = files.len();
    files.extend((target.refused)());
    let own = files.len();
    let mut random = StdRng::seed_from_u64(seed);
    let mut reached = Reached::default();
    let mut run = (target.begin)();
    let mut report = Report {
        executions,
        taken: 0,
        largest: 0,
        longest: Duration::ZERO,
        reached: None,
        kept: 0,
    };
    let is_counted = Reached::is_counted();
    for execution in 0..executions {
        // As they are first: the whole ones must be taken, or nothing is tested, and the others not.
        let at = usize::try_from(execution).unwrap_or(usize::MAX);
        let must_be_taken = (at < own).then_some(at < whole);
        let as_it_is = files[..own].get(at).cloned();
        let file = as_it_is.unwrap_or_else(|| changed(&files, target.words, &mut random));
        if is_counted {
            Reached::begin();
        }
        let mut taken = Ok(false);
        let begun = Instant::now();
        let bytes = largest(&mut || taken = catch_unwind(AssertUnwindSafe(|| run(&file))));
        let took = begun.elapsed();
        let told = || {
            let name = target.name;
            println!("FUZZ | {name}, seed {seed}, execution {execution}: {}", file.escape_ascii());
        };
        let taken = taken.unwrap_or_else(|panic| {
            told();
            resume_unwind(panic)
        });
        let most = target.most + file.len() * target.share;
        let is_wrong = must_be_taken.is_some_and(|must| must != taken);
        if bytes > most || took > WITHIN || is_wrong {
            told();
        }
        assert!(bytes <= most, "{}: {bytes} bytes at once for {}", target.name, file.len());
        assert!(took <= WITHIN, "{}: {took:?} for {} bytes", target.name, file.len());
        assert!(!is_wrong, "{}: of its own files, one is taken: {taken}", target.name);
        report.taken += u64::from(taken);
        report.largest = report.largest.max(bytes);
        report.longest = report.longest.max(took);
        if is_counted && reached.end() > 0 && at >= own && files.len() < MOST_KEPT {
            files.push(file);
        }
    }
    report.kept = files.len() - own;
    report.reached = is_counted.then(|| reached.count());
    report
}
