//! Text out of a score for each symbol at each step.

use std::collections::BTreeMap;

use holdfast_models::outputs::ctc::{Ctc, Search, StepValues};
use holdfast_models::outputs::{DecodeError, View};
use proptest::prelude::*;

fn ctc(symbols: &[&str], values: StepValues, search: Search) -> Ctc {
    Ctc {
        symbols: symbols.iter().map(|&symbol| symbol.to_owned()).collect(),
        blank: 0,
        values,
        search,
        collapse_spaces: false,
    }
}

/// One step that is sure of each of these symbols.
fn sure(count: usize, steps: &[usize]) -> Vec<f32> {
    let step = |symbol: usize| (0..count).map(move |at| f32::from(u8::from(at == symbol)));
    steps.iter().copied().flat_map(step).collect()
}

#[test]
fn repeats_are_one_symbol_and_blanks_none() {
    for search in [Search::Greedy, Search::Beam(8)] {
        let ctc = ctc(&["-", "a", "b"], StepValues::Probabilities, search);
        for (steps, want) in [
            (&[0, 1, 1, 0, 2, 2][..], "ab"),
            (&[1, 0, 1], "aa"),
            (&[1, 1, 1], "a"),
            (&[1, 2, 1], "aba"),
            (&[0, 0], ""),
        ] {
            let values = sure(3, steps);
            let got = ctc.decode(View { values: &values, shape: &[1, steps.len(), 3] }).unwrap();
            assert_eq!((&*got.text, got.steps), (want, steps.len()), "{search:?} {steps:?}");
            assert!(got.log_probability.abs() < 1e-9 && got.confidence() > 0.999_999);
        }
        let nothing = ctc.decode(View { values: &[], shape: &[1, 0, 3] }).unwrap();
        assert_eq!((&*nothing.text, nothing.confidence()), ("", 1.0));
    }
}

#[test]
fn the_best_text_is_not_always_made_of_the_best_symbols() {
    // Twice: blank 0.6, a 0.4. The best alignment is two blanks with 0.36; "a" has three with
    // 0.4 * 0.6 + 0.6 * 0.4 + 0.4 * 0.4 = 0.64.
    let values = [0.6, 0.4, 0.6, 0.4];
    let view = View { values: &values, shape: &[2, 1, 2] };
    let symbols = ["", "a"];
    let greedy = ctc(&symbols, StepValues::Probabilities, Search::Greedy).decode(view).unwrap();
    assert_eq!(greedy.text, "");
    assert!((greedy.log_probability.exp() - 0.36).abs() < 1e-6);
    assert!((greedy.confidence() - 0.6).abs() < 1e-6);
    let beam = ctc(&symbols, StepValues::Probabilities, Search::Beam(4)).decode(view).unwrap();
    assert_eq!((&*beam.text, beam.symbols), ("a", vec![1]));
    assert!((beam.log_probability.exp() - 0.64).abs() < 1e-6);
    assert!((beam.log_probability / 2.0).exp() - 0.8 < 1e-6);
}

#[test]
fn values_are_read_in_every_form() {
    let probabilities = [0.25, 0.75, 0.375, 0.625, 0.125, 0.875f32];
    let logs = probabilities.map(f32::ln);
    let logits = logs.map(|log| log + 17.0);
    for search in [Search::Greedy, Search::Beam(16)] {
        let all: Vec<f64> = [
            (StepValues::Probabilities, probabilities),
            (StepValues::LogProbabilities, logs),
            (StepValues::Logits, logits),
        ]
        .map(|(of, values)| {
            let view = View { values: &values, shape: &[1, 3, 2] };
            let got = ctc(&["", "x"], of, search).decode(view).unwrap();
            assert_eq!(got.text, "x");
            got.log_probability
        })
        .to_vec();
        assert!(all.iter().all(|log| (log - all[0]).abs() < 1e-5), "{search:?}: {all:?}");
    }
}

#[test]
fn spaces_are_collapsed_when_that_is_asked_for() {
    let values = sure(3, &[1, 2, 1, 0, 1, 2, 1]);
    let view = View { values: &values, shape: &[7, 3] };
    let mut ctc = ctc(&["", " ", "ä"], StepValues::Probabilities, Search::Greedy);
    assert_eq!(ctc.decode(view).unwrap().text, " ä  ä ");
    ctc.collapse_spaces = true;
    assert_eq!(ctc.decode(view).unwrap().text, "ä ä");
    // The blank may stand anywhere.
    ctc.blank = 2;
    assert_eq!(ctc.decode(view).unwrap().text, "");
}

#[test]
fn long_recordings_have_no_probability_of_zero() {
    let steps = 4000;
    let values: Vec<f32> = (0..steps).flat_map(|_| [0.3, 0.3, 0.4]).collect();
    let view = View { values: &values, shape: &[1, steps, 3] };
    for search in [Search::Greedy, Search::Beam(3)] {
        let got = ctc(&["", "a", "b"], StepValues::Probabilities, search).decode(view).unwrap();
        assert!(got.log_probability.is_finite() && got.log_probability < -400.0, "{search:?}");
        assert!((0.3..0.99).contains(&got.confidence()), "{search:?} {}", got.confidence());
    }
}

#[test]
fn what_is_no_score_is_refused() {
    let refused = |of: StepValues, search: Search, values: &[f32], shape: &[usize]| {
        ctc(&["", "a"], of, search).decode(View { values, shape }).unwrap_err()
    };
    use StepValues::{LogProbabilities, Logits, Probabilities};
    for search in [Search::Greedy, Search::Beam(2)] {
        for (of, values) in [
            (Logits, [0.0, f32::NAN]),
            (Logits, [f32::INFINITY, 0.0]),
            (Logits, [f32::NEG_INFINITY; 2]),
            (LogProbabilities, [f32::NAN, 0.0]),
            (Probabilities, [f32::NAN, 0.0]),
            (Probabilities, [0.0, 0.0]),
        ] {
            let error = refused(of, search, &values, &[1, 2]);
            assert!(matches!(error, DecodeError::NotFinite { .. }), "{of:?} {values:?}: {error}");
        }
        for (of, values) in [
            (LogProbabilities, [1.0, 0.0]),
            (LogProbabilities, [0.0, 0.0]),
            (Probabilities, [0.0, 1.5]),
            (Probabilities, [0.25, 0.125]),
        ] {
            let error = refused(of, search, &values, &[1, 2]);
            assert!(matches!(error, DecodeError::OutOfRange { .. }), "{of:?} {values:?}: {error}");
        }
        for shape in [&[2][..], &[1, 1, 3], &[1, 2, 2]] {
            let error = refused(Logits, search, &[0.0; 2], shape);
            assert!(matches!(error, DecodeError::Shape { .. }), "{shape:?}: {error}");
        }
    }
    for width in [0, 2000] {
        let error = refused(Logits, Search::Beam(width), &[0.0; 2], &[1, 2]);
        assert!(matches!(error, DecodeError::Parameter { what: "beam", .. }), "{error}");
    }
    let mut odd = ctc(&["", "a"], Logits, Search::Greedy);
    odd.blank = 2;
    let got = odd.decode(View { values: &[0.0; 2], shape: &[1, 2] });
    assert!(matches!(got, Err(DecodeError::Parameter { what: "blank", .. })), "{got:?}");
}

/// The probability of each text: of every way to take one symbol at each step, the product, summed
/// where the ways are the same text.
fn texts_slowly(values: &[f32], count: usize, blank: usize) -> BTreeMap<Vec<usize>, f64> {
    let mut ways: Vec<(Vec<usize>, f64)> = vec![(Vec::new(), 1.0)];
    for row in values.chunks_exact(count) {
        let longer = |(way, p): &(Vec<usize>, f64)| {
            let (way, p) = (way.clone(), *p);
            row.iter().enumerate().map(move |(symbol, q)| {
                let mut way = way.clone();
                way.push(symbol);
                (way, p * f64::from(*q))
            })
        };
        ways = ways.iter().flat_map(longer).collect();
    }
    let mut texts = BTreeMap::new();
    for (mut way, p) in ways {
        way.dedup();
        way.retain(|symbol| *symbol != blank);
        *texts.entry(way).or_insert(0.0) += p;
    }
    texts
}

/// Steps of probabilities that sum to 1.
fn steps(count: usize) -> impl Strategy<Value = Vec<f32>> {
    let step = prop::collection::vec(0u8..10, count).prop_map(|parts| {
        let sum: f32 = parts.iter().map(|x| f32::from(*x)).sum::<f32>() + 1.0;
        let mut shares: Vec<f32> = parts.iter().map(|x| f32::from(*x) / sum).collect();
        shares[0] += 1.0 / sum;
        shares
    });
    prop::collection::vec(step, 1..6).prop_map(|steps| steps.concat())
}

proptest! {
    #[test]
    fn a_wide_beam_finds_the_most_probable_text(values in steps(3), blank in 0usize..3) {
        let mut ctc = ctc(&["x", "y", "z"], StepValues::Probabilities, Search::Beam(1024));
        ctc.blank = blank;
        let view = View { values: &values, shape: &[values.len() / 3, 3] };
        let got = ctc.decode(view).unwrap();
        let texts = texts_slowly(&values, 3, blank);
        let best = texts.values().copied().fold(0.0, f64::max);
        prop_assert!((got.log_probability.exp() - best).abs() < 1e-6);
        prop_assert!((texts[&got.symbols] - best).abs() < 1e-6, "{:?}", got);
    }

    #[test]
    fn a_narrow_beam_never_claims_more_than_a_text_has(values in steps(4), width in 1usize..4) {
        let ctc = ctc(&["-", "y", "z", "w"], StepValues::Probabilities, Search::Beam(width));
        let got = ctc.decode(View { values: &values, shape: &[values.len() / 4, 4] }).unwrap();
        let has = texts_slowly(&values, 4, 0)[&got.symbols];
        prop_assert!(got.log_probability.exp() <= has + 1e-6, "{:?} {}", got, has);
    }

    #[test]
    fn greedy_is_the_way_of_the_best_symbols(values in steps(4)) {
        let ctc = ctc(&["-", "y", "z", "w"], StepValues::Probabilities, Search::Greedy);
        let got = ctc.decode(View { values: &values, shape: &[values.len() / 4, 4] }).unwrap();
        let best = |row: &[f32]| {
            let highest = row.iter().copied().fold(0.0, f32::max);
            row.iter().position(|x| *x == highest).unwrap()
        };
        let mut way: Vec<usize> = values.chunks_exact(4).map(best).collect();
        way.dedup();
        way.retain(|symbol| *symbol != 0);
        prop_assert_eq!(got.symbols, way);
    }

    #[test]
    fn any_numbers_end_in_a_sentence_or_a_text(
        values in prop::collection::vec(prop::num::f32::ANY, 0..30),
        of in prop::sample::select(vec![
            StepValues::Logits, StepValues::LogProbabilities, StepValues::Probabilities,
        ]),
        search in prop::sample::select(vec![Search::Greedy, Search::Beam(3)]),
        count in 1usize..4,
    ) {
        let symbols = &["", "a", " "][..count];
        let view = View { values: &values, shape: &[values.len() / count, count] };
        if let Ok(got) = ctc(symbols, of, search).decode(view) {
            prop_assert!(got.log_probability <= 1e-6, "{:?}", got);
            prop_assert!((0.0..=1.0).contains(&got.confidence()));
        }
    }
}

/// The texts that nothing under search begins with any more take no memory, however long it goes on.
#[test]
fn a_long_search_holds_what_it_needs() {
    const STEPS: usize = 3000;
    let symbols = ["-", "a", "b", "c", "d"];
    let ctc = ctc(&symbols, StepValues::Probabilities, Search::Beam(128));
    // Each step is rather sure of one symbol, and gives all others a chance.
    let steps: Vec<usize> = (0..STEPS).map(|at| 1 + (at * 7 + at / 13) % 4).collect();
    let values: Vec<f32> = steps
        .iter()
        .flat_map(|best| (0..5).map(move |at| if at == *best { 0.6 } else { 0.1 }))
        .collect();
    let mut got = None;
    let largest = crate::counted::largest_allocation(|| {
        got = Some(ctc.decode(View { values: &values, shape: &[STEPS, 5] }).unwrap());
    });
    assert!(largest < 2 << 20, "{largest} bytes at once; all texts that were ever kept take more");
    let mut want = String::new();
    for (at, step) in steps.iter().enumerate() {
        if at == 0 || steps[at - 1] != *step {
            want += symbols[*step];
        }
    }
    assert_eq!(got.unwrap().text, want);
}
