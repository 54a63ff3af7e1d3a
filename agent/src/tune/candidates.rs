//! Which ways to run a bundle are worth trying on a board, and which of those tried is taken.
//!
//! **Invariant:** pure: the same facts give the same answer.

use std::num::NonZeroUsize;

use holdfast_models::Variant;
use holdfast_models::runtime::onnx_runtime::Provider;

use super::choice::{Choice, Tried};

/// The runtime that every build has.
pub const TRACT: &str = "tract";
/// Two choices whose medians differ by less than this share are equally fast.
const SAME: f64 = 0.05;

/// What the operator has decided already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pins {
    /// The variant, where a bundle has it.
    pub variant: Option<String>,
    /// The runtime.
    pub runtime: Option<String>,
    /// Threads for one request.
    pub threads: Option<NonZeroUsize>,
}

/// What a choice must not exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Accuracy that may be given up for speed, against the bundle's most accurate variant.
    pub accuracy_loss: f32,
    /// Memory of one model, in KiB.
    pub memory_kib: Option<u64>,
}

/// Every way to run these variants on a board with these runtimes beside tract.
pub fn candidates(
    variants: &[Variant],
    runtimes: &[String],
    cores: NonZeroUsize,
    pins: &Pins,
) -> Vec<Choice> {
    let pinned = |variant: &&Variant| {
        let wanted =
            pins.variant.as_deref().filter(|name| variants.iter().any(|v| v.name == **name));
        wanted.is_none_or(|name| variant.name == name)
    };
    let mut found = Vec::new();
    for variant in variants.iter().filter(pinned) {
        let tract = [TRACT.to_owned()];
        for runtime in tract.iter().chain(runtimes) {
            if pins.runtime.as_ref().is_some_and(|wanted| wanted != runtime) {
                continue;
            }
            for threads in threads(runtime, cores, pins.threads) {
                let (variant, runtime) = (variant.name.clone(), runtime.clone());
                found.push(Choice { variant, runtime, threads });
            }
        }
    }
    found
}

/// One thread, and as many as there are cores; on what calculates elsewhere, one.
fn threads(runtime: &str, cores: NonZeroUsize, pinned: Option<NonZeroUsize>) -> Vec<NonZeroUsize> {
    let one = NonZeroUsize::MIN;
    let uses_cores = [Provider::Cpu, Provider::Xnnpack].iter().any(|p| p.engine() == runtime);
    match pinned {
        _ if !uses_cores => vec![one],
        Some(threads) => vec![threads],
        None if cores == one => vec![one],
        None => vec![one, cores],
    }
}

/// The fastest that is accurate enough and small enough. Of those that are equally fast the one with
/// fewer threads is taken, since the rest of the board wants to run too, and then the smaller one.
pub fn choose<'a>(tried: &'a [Tried], variants: &[Variant], limits: Limits) -> Option<&'a Tried> {
    let accuracy = |name: &str| variants.iter().find(|v| v.name == name).map(|v| v.accuracy);
    let best = variants.iter().map(|variant| variant.accuracy).fold(0.0, f32::max);
    let is_accurate = |tried: &Tried| {
        accuracy(&tried.choice.variant).is_some_and(|a| a >= best - limits.accuracy_loss)
    };
    let fits = |kib: u64| limits.memory_kib.is_none_or(|most| kib <= most);
    let usable = |tried: &&Tried| tried.measured().is_some_and(|m| fits(m.peak_kib));
    let mut left: Vec<&Tried> = tried.iter().filter(usable).collect();
    // A bundle whose accurate variants cannot run here serves what can.
    if left.iter().any(|tried| is_accurate(tried)) {
        left.retain(|tried| is_accurate(tried));
    }
    let p50 = |tried: &Tried| tried.measured().map_or(f64::INFINITY, |m| m.p50_ms);
    let fastest = left.iter().map(|tried| p50(tried)).fold(f64::INFINITY, f64::min);
    left.into_iter().filter(|tried| p50(tried) <= fastest * (1.0 + SAME)).min_by_key(|tried| {
        let kib = tried.measured().map_or(u64::MAX, |m| m.peak_kib);
        (tried.choice.threads, kib)
    })
}

#[cfg(test)]
mod tests {
    use holdfast_models::bundle::Precision;

    use super::super::choice::{Measured, Outcome};
    use super::*;

    const LIMITS: Limits = Limits { accuracy_loss: 0.01, memory_kib: None };

    fn variant(name: &str, accuracy: f32) -> Variant {
        Variant {
            name: name.into(),
            precision: Precision::Fp32,
            file: format!("{name}.onnx"),
            tolerance: 0.1,
            accuracy,
        }
    }

    fn count(threads: usize) -> NonZeroUsize {
        NonZeroUsize::new(threads).unwrap()
    }

    fn tried(variant: &str, runtime: &str, threads: usize, p50_ms: f64, peak_kib: u64) -> Tried {
        let choice =
            Choice { variant: variant.into(), runtime: runtime.into(), threads: count(threads) };
        let measured =
            Measured { load_ms: 1.0, p50_ms, p99_ms: p50_ms, peak_kib, off: 0.0, count: 1 };
        Tried { choice, outcome: Outcome::Measured(measured) }
    }

    #[test]
    fn every_variant_is_tried_on_every_runtime_unless_it_is_pinned() {
        let variants = [variant("int8", 0.9), variant("fp32", 0.9)];
        let onnx = ["onnxruntime".to_owned(), "onnxruntime-cuda".to_owned()];
        let shown = |runtimes: &[String], cores, pins: &Pins| -> Vec<String> {
            let found = candidates(&variants, runtimes, count(cores), pins);
            found.iter().map(ToString::to_string).collect()
        };
        let none = Pins::default();
        assert_eq!(shown(&[], 4, &none), ["int8 tract", "fp32 tract"]);
        assert_eq!(shown(&onnx[..1], 1, &none).len(), 4);
        let all = shown(&onnx, 4, &none);
        assert_eq!(
            all[..4],
            [
                "int8 tract",
                "int8 onnxruntime",
                "int8 onnxruntime 4 threads",
                "int8 onnxruntime-cuda"
            ]
        );
        let pins = |variant: &str, runtime: &str, threads| Pins {
            variant: Some(variant.into()),
            runtime: Some(runtime.into()),
            threads: Some(count(threads)),
        };
        assert_eq!(
            shown(&onnx, 4, &pins("fp32", "onnxruntime", 2)),
            ["fp32 onnxruntime 2 threads"]
        );
        assert_eq!(shown(&onnx, 4, &pins("fp32", "tract", 2)), ["fp32 tract"]);
        // A bundle without the pinned variant runs all the same.
        assert_eq!(shown(&onnx, 4, &pins("fp16", "tract", 1)), ["int8 tract", "fp32 tract"]);
    }

    #[test]
    fn the_fastest_that_is_right_and_fits_is_taken() {
        let variants = [variant("int8", 0.90), variant("fp32", 0.905), variant("tiny", 0.7)];
        let tried = [
            tried("int8", "tract", 1, 9.0, 4000),
            tried("fp32", "tract", 1, 5.0, 6000),
            tried("int8", "onnxruntime", 1, 2.0, 20_000),
            tried("int8", "onnxruntime", 4, 1.95, 20_000),
            tried("tiny", "onnxruntime", 1, 0.1, 10_000),
        ];
        let chosen = |tried: &[Tried], limits| {
            choose(tried, &variants, limits).map(|tried| tried.choice.to_string())
        };
        assert_eq!(chosen(&tried, LIMITS).unwrap(), "int8 onnxruntime", "as fast, fewer threads");
        let small = Limits { memory_kib: Some(8000), ..LIMITS };
        assert_eq!(chosen(&tried, small).unwrap(), "fp32 tract");
        let lax = Limits { accuracy_loss: 0.5, ..LIMITS };
        assert_eq!(chosen(&tried, lax).unwrap(), "tiny onnxruntime");
        let exact = Limits { accuracy_loss: 0.0, ..LIMITS };
        assert_eq!(chosen(&tried, exact).unwrap(), "fp32 tract");
        assert_eq!(chosen(&tried[4..], LIMITS).unwrap(), "tiny onnxruntime", "better than nothing");
        let refused = Tried { outcome: Outcome::Refused("no".into()), ..tried[0].clone() };
        assert_eq!(chosen(&[refused], LIMITS), None);
    }
}
