//! Boxes out of the numbers that detectors give.

use std::fs;

use holdfast_models::bundle::Resize;
use holdfast_models::image::Placement;
use holdfast_models::outputs::detection::{Finished, Offsets, Scores, Ssd};
use holdfast_models::outputs::priors::{Middles, Prior, PriorMap};
use holdfast_models::outputs::region::{BoxForm, Unit};
use holdfast_models::outputs::suppression::Rules;
use holdfast_models::outputs::{DecodeError, Detection, Region, View};
use proptest::prelude::*;

use crate::reference;

/// Every score from `score` on, and no box pushes another out.
pub(crate) fn rules(score: f32, overlap: f32) -> Rules {
    Rules {
        score,
        overlap,
        across_classes: false,
        every_class: true,
        candidates: 1000,
        detections: 100,
    }
}

/// A picture that is the tensor.
pub(crate) fn same(width: u32, height: u32) -> Placement {
    Placement::new(Resize::Stretch, (width, height), (width, height))
}

pub(crate) fn sides(region: &Region) -> [f32; 4] {
    [region.left, region.top, region.right, region.bottom]
}

pub(crate) fn is_near(region: &Region, want: [f32; 4]) -> bool {
    sides(region).iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-3)
}

fn ssd(form: BoxForm, unit: Unit, rules: Rules) -> Ssd {
    Ssd { form, unit, priors: None, scores: Scores::Plain, background: None, rules }
}

fn decode(ssd: &Ssd, boxes: &[f32], scores: &[f32], placement: &Placement) -> Vec<Detection> {
    let places = boxes.len() / 4;
    let boxes = View { values: boxes, shape: &[1, places, 4] };
    let scores = View { values: scores, shape: &[1, places, scores.len() / places] };
    ssd.decode(boxes, scores, placement).unwrap()
}

#[test]
fn four_numbers_are_read_in_every_form() {
    for (form, numbers) in [
        (BoxForm::Corners, [10.0, 20.0, 50.0, 40.0]),
        (BoxForm::CornersByRow, [20.0, 10.0, 40.0, 50.0]),
        (BoxForm::Centre, [30.0, 30.0, 40.0, 20.0]),
        (BoxForm::CentreByRow, [30.0, 30.0, 20.0, 40.0]),
    ] {
        let pixels = ssd(form, Unit::Pixel, rules(0.5, 1.0));
        let found = decode(&pixels, &numbers, &[0.75], &same(100, 200));
        assert_eq!(found.len(), 1, "{form:?}");
        assert_eq!(sides(&found[0].region), [10.0, 20.0, 50.0, 40.0], "{form:?}");
        assert_eq!((found[0].class, found[0].score), (0, 0.75));
        let is_by_row = matches!(form, BoxForm::CornersByRow | BoxForm::CentreByRow);
        let (x, y) = if is_by_row { (200.0, 100.0) } else { (100.0, 200.0) };
        let shares = [numbers[0] / x, numbers[1] / y, numbers[2] / x, numbers[3] / y];
        let shares_of = ssd(form, Unit::Fraction, rules(0.5, 1.0));
        let found = decode(&shares_of, &shares, &[0.75], &same(100, 200));
        assert!(is_near(&found[0].region, [10.0, 20.0, 50.0, 40.0]), "{form:?} {found:?}");
    }
}

#[test]
fn offsets_are_counted_from_priors() {
    let prior = Prior { centre: (0.5, 0.25), size: (0.2, 0.1) };
    let offsets = Offsets { priors: vec![prior], variances: [0.1, 0.1, 0.2, 0.2] };
    // x = 0.1 * 5 * 0.2 + 0.5, y = 0.1 * -5 * 0.1 + 0.25, w = 0.2 exp(0.2 * 2), h = 0.1 exp(0).
    let (x, y, w, h) = (0.6, 0.2, 0.2 * 0.4f32.exp(), 0.1);
    let centre = [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0].map(|side| side * 100.0);
    // The prior's sides are 0.4, 0.2, 0.6 and 0.3.
    let corners = [40.0 + 50.0, 20.0 - 10.0, 60.0 + 40.0, 30.0];
    for (form, numbers, want) in [
        (BoxForm::Centre, [5.0, -5.0, 2.0, 0.0], centre),
        (BoxForm::CentreByRow, [-5.0, 5.0, 0.0, 2.0], centre),
        (BoxForm::Corners, [5.0, -1.0, 2.0, 0.0], corners),
    ] {
        let mut ssd = ssd(form, Unit::Fraction, rules(0.5, 1.0));
        ssd.priors = Some(offsets.clone());
        let found = decode(&ssd, &numbers, &[1.0], &same(100, 100));
        assert!(is_near(&found[0].region, want), "{form:?}: {found:?}, not {want:?}");
    }
}

#[test]
fn scores_are_what_the_graph_gives_or_a_function_of_it() {
    let one = [0.0, 0.0, 10.0, 10.0];
    let third = 1.0 / (1.0 + 2f32.exp() + 1f32.exp());
    for (scores, values, want) in [
        (Scores::Plain, [0.25, 0.5, 1.0], [0.25, 0.5, 1.0]),
        (Scores::Sigmoid, [0.0, 200.0, -1f32.ln_1p()], [0.5, 1.0, 1.0 / 3.0]),
        (Scores::Softmax, [1.0, 3.0, 2.0], [third, third * 2f32.exp(), third * 1f32.exp()]),
        (Scores::Softmax, [300.0, f32::NEG_INFINITY, 300.0], [0.5, 0.0, 0.5]),
    ] {
        let mut ssd = ssd(BoxForm::Corners, Unit::Pixel, rules(0.0, 1.0));
        ssd.scores = scores;
        let mut found = decode(&ssd, &one, &values, &same(10, 10));
        found.sort_by_key(|detection| detection.class);
        let got: Vec<f32> = found.iter().map(|detection| detection.score).collect();
        let is_near = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6);
        assert!(got.len() == 3 && is_near, "{scores:?}: {got:?}, not {want:?}");
        ssd.background = Some(1);
        let classes: Vec<usize> =
            decode(&ssd, &one, &values, &same(10, 10)).iter().map(|d| d.class).collect();
        assert!(!classes.contains(&1) && classes.len() == 2, "{classes:?}");
    }
}

#[test]
fn of_boxes_that_overlap_the_best_is_kept() {
    // The first two share 50 of 150, the last two lie beside them.
    let boxes = [
        [0.0, 0.0, 10.0, 10.0],
        [5.0, 0.0, 15.0, 10.0],
        [40.0, 0.0, 50.0, 10.0],
        [0.0, 40.0, 10.0, 50.0],
    ];
    let boxes = boxes.as_flattened();
    // A column a class.
    let scores = [0.6, 0.1, 0.9, 0.6, 0.3, 0.1, 0.7, 0.1];
    let found = |rules: Rules| -> Vec<(usize, f32, f32)> {
        let ssd = ssd(BoxForm::Corners, Unit::Pixel, rules);
        let list = decode(&ssd, boxes, &scores, &same(100, 100));
        list.iter().map(|d| (d.class, d.score, d.region.left)).collect()
    };
    let all = [(0, 0.9, 5.0), (0, 0.7, 0.0), (0, 0.6, 0.0), (1, 0.6, 5.0)];
    assert_eq!(found(rules(0.5, 0.34)), all);
    assert_eq!(found(rules(0.5, 0.33)), [all[0], all[1], all[3]]);
    assert_eq!(found(Rules { across_classes: true, ..rules(0.5, 0.33) }), all[..2]);
    assert_eq!(found(Rules { every_class: false, ..rules(0.5, 0.34) }), all[..3]);
    assert_eq!(found(Rules { detections: 2, ..rules(0.5, 0.34) }), all[..2]);
    assert_eq!(found(Rules { candidates: 1, ..rules(0.5, 0.34) }), all[..1]);
    assert_eq!(found(rules(0.95, 0.33)), []);
}

#[test]
fn boxes_come_back_to_the_picture() {
    let tensor = (100, 100);
    let whole = [0.0, 0.0, 100.0, 100.0];
    for (resize, picture, region, want) in [
        (Resize::Stretch, (400, 50), [10.0, 10.0, 20.0, 20.0], Some([40.0, 5.0, 80.0, 10.0])),
        // The middle 50 of 400 columns.
        (Resize::Crop, (400, 50), [10.0, 10.0, 20.0, 20.0], Some([180.0, 5.0, 185.0, 10.0])),
        (Resize::Crop, (50, 400), whole, Some([0.0, 175.0, 50.0, 225.0])),
        // 400 x 200 lies on the rows from 25 to 75, four times as small.
        (Resize::Letterbox(0), (400, 200), [0.0, 25.0, 50.0, 75.0], Some([0.0, 0.0, 200.0, 200.0])),
        (Resize::Letterbox(0), (400, 200), whole, Some([0.0, 0.0, 400.0, 200.0])),
        // Above the picture.
        (Resize::Letterbox(0), (400, 200), [0.0, 0.0, 50.0, 24.0], None),
        (Resize::Stretch, (400, 50), [-10.0, -10.0, -1.0, 50.0], None),
    ] {
        let placement = Placement::new(resize, picture, tensor);
        let ssd = ssd(BoxForm::Corners, Unit::Pixel, rules(0.5, 1.0));
        let found = decode(&ssd, &region, &[1.0], &placement);
        let got = found.first().map(|detection| detection.region);
        let is_right = match (got, want) {
            (Some(got), Some(want)) => is_near(&got, want),
            (got, want) => got.is_none() && want.is_none(),
        };
        assert!(is_right, "{resize:?} {picture:?} {region:?}: {got:?}, not {want:?}");
    }
}

#[test]
fn finished_boxes_are_read() {
    let rows = [
        [10.0, 20.0, 50.0, 40.0, 0.75, 2.0],
        [10.0, 20.0, 50.0, 40.0, 0.5, 1.0],
        // What fills up the list means nothing.
        [0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
    ];
    let mut finished =
        Finished { form: BoxForm::Corners, unit: Unit::Pixel, classes: 3, rules: rules(0.25, 1.0) };
    let list = View { values: rows.as_flattened(), shape: &[1, 3, 6] };
    let found = finished.decode(list, &same(100, 100)).unwrap();
    let got: Vec<(usize, f32)> = found.iter().map(|d| (d.class, d.score)).collect();
    assert_eq!(got, [(2, 0.75), (1, 0.5)]);
    finished.classes = 2;
    let got = finished.decode(list, &same(100, 100));
    assert!(matches!(got, Err(DecodeError::OutOfRange { what: "a class", .. })), "{got:?}");
}

#[test]
fn what_is_no_answer_is_refused() {
    let good = ssd(BoxForm::Corners, Unit::Pixel, rules(0.5, 0.5));
    let boxes = [1.0, 1.0, 9.0, 9.0];
    let got = |ssd: &Ssd, boxes: &[f32], shape: &[usize], scores: &[f32]| {
        let boxes = View { values: boxes, shape };
        let scores = View { values: scores, shape: &[1, 1, scores.len()] };
        ssd.decode(boxes, scores, &same(10, 10)).map(|found| found.len())
    };
    assert_eq!(got(&good, &boxes, &[1, 1, 4], &[0.9]), Ok(1));
    for value in [f32::NAN, f32::INFINITY] {
        let error = got(&good, &boxes, &[1, 1, 4], &[0.9, value]).unwrap_err();
        let want = "as a score: the answer is not usable, use another variant";
        assert!(error.to_string().ends_with(want), "{error}");
    }
    let error = got(&good, &boxes, &[1, 1, 4], &[7.5]).unwrap_err();
    assert!(error.to_string().contains("gave 7.5 as a score: must be 0..=1"), "{error}");
    for (boxes, shape) in
        [(&boxes[..], &[4usize][..]), (&boxes[..2], &[1, 1, 4][..]), (&[][..], &[0, 4][..])]
    {
        let error = got(&good, boxes, shape, &[0.9]).unwrap_err();
        assert!(matches!(error, DecodeError::Shape { .. }), "{error}");
    }
    // Boxes that are none are dropped.
    for odd in [
        [f32::NAN, 1.0, 9.0, 9.0],
        [1.0, 1.0, f32::INFINITY, 9.0],
        [9.0, 1.0, 1.0, 9.0],
        [1.0, 1.0, 1.0, 9.0],
    ] {
        assert_eq!(got(&good, &odd, &[1, 1, 4], &[0.9]), Ok(0), "{odd:?}");
    }
    for odd in [
        Rules { score: f32::NAN, ..good.rules },
        Rules { overlap: -0.1, ..good.rules },
        Rules { candidates: 0, ..good.rules },
        Rules { detections: 100_000, ..good.rules },
    ] {
        let error = got(&Ssd { rules: odd, ..good.clone() }, &boxes, &[1, 1, 4], &[0.9]);
        assert!(matches!(error, Err(DecodeError::Parameter { .. })), "{odd:?}: {error:?}");
    }
    let one = Prior { centre: (0.5, 0.5), size: (1.0, 1.0) };
    for priors in [vec![], vec![one; 2], vec![one]] {
        // The last is refused for its unit.
        let priors = Some(Offsets { priors, variances: [0.1; 4] });
        let error = got(&Ssd { priors, ..good.clone() }, &boxes, &[1, 1, 4], &[0.9]).unwrap_err();
        assert!(error.to_string().contains("one prior for each box"), "{error}");
    }
}

fn face_maps() -> Vec<PriorMap> {
    let map = |stride, sizes: &[f32]| PriorMap { stride, sizes: sizes.to_vec() };
    vec![
        map(8, &[10.0, 16.0, 24.0]),
        map(16, &[32.0, 48.0]),
        map(32, &[64.0, 96.0]),
        map(64, &[128.0, 192.0, 256.0]),
    ]
}

fn little_endian(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

#[test]
fn priors_are_those_in_the_face_detectors_file() {
    let Some(dir) = reference::folder("the face detector's priors") else { return };
    let onnx = fs::read(dir.join("models/face_ultralight_rfb_320_fp32.onnx")).unwrap();
    let priors = Prior::generate((320, 240), &face_maps(), Middles::Even).unwrap();
    assert_eq!(priors.len(), 4420);
    // Sizes as they are; centres were computed in f64 there.
    find(&onnx, &little_endian(priors.iter().flat_map(|p| [p.size.0, p.size.1])));
    let centres: Vec<f32> = priors.iter().flat_map(|p| [p.centre.0, p.centre.1]).collect();
    let start = find(&onnx, &little_endian(centres[..40].iter().copied()));
    let (numbers, _) = onnx[start..start + 4 * centres.len()].as_chunks();
    for (own, bytes) in centres.iter().zip(numbers) {
        assert!((own - f32::from_le_bytes(*bytes)).abs() < 1e-6, "{own}");
    }
}

#[test]
fn priors_are_generated_and_read() {
    let map = PriorMap { stride: 40, sizes: vec![20.0, 400.0] };
    let generate = |middles| Prior::generate((100, 50), std::slice::from_ref(&map), middles);
    let priors = generate(Middles::Stride).unwrap();
    assert_eq!(priors.len(), 3 * 2 * 2);
    assert_eq!(priors[0], Prior { centre: (0.2, 0.4), size: (0.2, 0.4) });
    assert_eq!(priors[1], Prior { centre: (0.2, 0.4), size: (1.0, 1.0) });
    // Middles beyond the edge are cut.
    assert_eq!(priors[10].centre, (1.0, 1.0));
    assert_eq!(generate(Middles::Even).unwrap()[10].centre, (2.5 / 3.0, 0.75));
    let odd = |stride, size| {
        let map = PriorMap { stride, sizes: vec![size] };
        Prior::generate((100, 50), &[map], Middles::Even)
    };
    assert!(odd(0, 10.0).is_err() && odd(8, 0.0).is_err() && odd(8, f32::NAN).is_err());
    let absurd = [PriorMap { stride: 1, ..map }];
    let absurd = Prior::generate((u32::MAX, u32::MAX), &absurd, Middles::Even);
    assert!(matches!(absurd, Err(DecodeError::Parameter { what: "number of priors", .. })));

    let values = [0.5, 0.5, 0.25, 0.125, 0.1, 0.2, 0.3, 0.4];
    let read = Prior::from_tensor(View { values: &values, shape: &[1, 2, 4] }).unwrap();
    assert_eq!(read[1], Prior { centre: (0.1, 0.2), size: (0.3, 0.4) });
    assert!(Prior::from_tensor(View { values: &values, shape: &[4, 2] }).is_err());
    let odd = Prior::from_tensor(View { values: &[f32::NAN; 4], shape: &[1, 4] });
    assert!(matches!(odd, Err(DecodeError::NotFinite { .. })), "{odd:?}");
}

#[test]
fn the_face_detectors_golden_outputs_are_one_face() {
    let Some(dir) = reference::folder("the face detector's golden outputs") else { return };
    let floats = |name: &str| -> Vec<f32> {
        let path = dir.join("models/golden").join(name);
        fs::read(path).unwrap().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let mut ssd = ssd(BoxForm::Corners, Unit::Fraction, rules(0.7, 0.3));
    ssd.background = Some(0);
    for (variant, near) in [("fp32", 1e-4), ("opset9_fp32", 1e-4), ("int8_qdq", 0.02)] {
        let output = |name| floats(&format!("face_ultralight_rfb_320_{variant}.out.{name}.bin"));
        let placement = Placement::new(Resize::Stretch, (1000, 1000), (320, 240));
        let found = decode(&ssd, &output("boxes"), &output("scores"), &placement);
        assert_eq!(found.len(), 1, "{variant}: {found:?}");
        let got = sides(&found[0].region).map(|side| side / 1000.0);
        // golden/face_rfb_320_fp32_detections.json, rounded there to four digits.
        let want = [0.3357, 0.2034, 0.7014, 0.5565];
        let is_near = got.iter().zip(want).all(|(got, want)| (got - want).abs() < near);
        assert!(is_near && found[0].class == 1 && found[0].score > 0.99, "{variant}: {found:?}");
    }
}

/// Suppression as its definition says it: the best of all is kept, what overlaps with it is taken
/// away, and so on. Areas are counted pixel by pixel.
fn kept_slowly(
    boxes: &[[u8; 4]],
    scores: &[f32],
    classes: usize,
    rules: Rules,
) -> Vec<(usize, usize)> {
    let is_in = |[l, t, r, b]: [u8; 4], x: u8, y: u8| (l..r).contains(&x) && (t..b).contains(&y);
    let overlap = |a: [u8; 4], b: [u8; 4]| {
        let (mut shared, mut covered) = (0u32, 0u32);
        for (x, y) in (0..12).flat_map(|x| (0..12).map(move |y| (x, y))) {
            shared += u32::from(is_in(a, x, y) && is_in(b, x, y));
            covered += u32::from(is_in(a, x, y) || is_in(b, x, y));
        }
        f64::from(shared) / f64::from(covered)
    };
    let mut left: Vec<(usize, usize)> = (0..boxes.len())
        .flat_map(|place| (0..classes).map(move |class| (place, class)))
        .filter(|(place, class)| scores[place * classes + class] >= rules.score)
        .collect();
    let score = |(place, class): (usize, usize)| scores[place * classes + class];
    left.sort_by(|a, b| score(*b).total_cmp(&score(*a)).then(a.cmp(b)));
    left.truncate(rules.candidates);
    left.retain(|(place, _)| {
        boxes[*place][0] < boxes[*place][2] && boxes[*place][1] < boxes[*place][3]
    });
    let mut kept = Vec::new();
    while !left.is_empty() && kept.len() < rules.detections {
        let best = left.remove(0);
        kept.push(best);
        left.retain(|other| {
            let rivals = rules.across_classes || other.1 == best.1;
            !rivals || overlap(boxes[best.0], boxes[other.0]) <= f64::from(rules.overlap)
        });
    }
    kept
}

proptest! {
    #[test]
    fn suppression_is_what_its_definition_says(
        boxes in prop::collection::vec(prop::array::uniform4(0u8..12), 1..30),
        steps in prop::collection::vec(0u8..=8, 90),
        classes in 1usize..=3,
        least in 0u8..=8,
        overlap in 0f32..=1.0,
        across_classes in any::<bool>(),
        candidates in 1usize..40,
        detections in 1usize..20,
    ) {
        // Few steps, so that there are equal scores.
        let scores: Vec<f32> =
            steps.iter().take(boxes.len() * classes).map(|s| f32::from(*s) / 8.0).collect();
        let rules = Rules {
            score: f32::from(least) / 8.0,
            overlap,
            across_classes,
            every_class: true,
            candidates,
            detections,
        };
        let numbers: Vec<f32> = boxes.as_flattened().iter().map(|x| f32::from(*x)).collect();
        let ssd = ssd(BoxForm::Corners, Unit::Pixel, rules);
        let found = decode(&ssd, &numbers, &scores, &same(12, 12));
        let want = kept_slowly(&boxes, &scores, classes, rules);
        prop_assert_eq!(found.len(), want.len());
        for (got, (place, class)) in found.iter().zip(want) {
            prop_assert_eq!(got.class, class);
            prop_assert_eq!(got.score, scores[place * classes + class]);
            prop_assert_eq!(sides(&got.region), boxes[place].map(f32::from));
        }
    }

    #[test]
    fn no_numbers_make_a_box_beside_the_picture(
        numbers in prop::collection::vec(prop::num::f32::ANY, 40),
        scores in prop::collection::vec(0f32..=1.0, 10),
        form in prop::sample::select(vec![
            BoxForm::Corners, BoxForm::CornersByRow, BoxForm::Centre, BoxForm::CentreByRow,
        ]),
        has_priors in any::<bool>(),
        resize in prop::sample::select(vec![Resize::Stretch, Resize::Crop, Resize::Letterbox(0)]),
        picture in (1u32..20_000, 1u32..20_000),
    ) {
        let mut ssd = ssd(form, Unit::Fraction, rules(0.25, 0.5));
        let prior = Prior { centre: (0.5, 0.5), size: (0.25, 0.25) };
        let offsets = Offsets { priors: vec![prior; 10], variances: [0.1, 0.1, 0.2, 0.2] };
        ssd.priors = has_priors.then_some(offsets);
        for found in decode(&ssd, &numbers, &scores, &Placement::new(resize, picture, (320, 240))) {
            let Region { left, top, right, bottom } = found.region;
            prop_assert!(0.0 <= left && left < right && right <= picture.0 as f32, "{:?}", found);
            prop_assert!(0.0 <= top && top < bottom && bottom <= picture.1 as f32, "{:?}", found);
            prop_assert!((0.25..=1.0).contains(&found.score));
        }
    }

    #[test]
    fn any_numbers_in_any_shape_end_in_a_sentence_or_boxes(
        numbers in prop::collection::vec(prop::num::f32::ANY, 0..60),
        shape in prop::collection::vec(0usize..8, 0..5),
        scores in prop::collection::vec(prop::num::f32::ANY, 0..60),
        of in prop::sample::select(vec![Scores::Plain, Scores::Sigmoid, Scores::Softmax]),
        classes in 0usize..4,
    ) {
        let mut ssd = ssd(BoxForm::Centre, Unit::Pixel, rules(0.0, 0.5));
        ssd.scores = of;
        let boxes = View { values: &numbers, shape: &shape };
        let count = scores.len();
        let list = Finished {
            form: BoxForm::Corners, unit: Unit::Fraction, classes, rules: ssd.rules,
        };
        for scores_shape in [[count, 1], [1, count], shape.iter().take(2).fold([1, 1], |[_, a], b| [a, *b])] {
            let scores = View { values: &scores, shape: &scores_shape };
            if let Err(error) = ssd.decode(boxes, scores, &same(10, 10)) {
                prop_assert!(error.to_string().contains("; ") || error.to_string().contains(": "));
            }
        }
        drop(list.decode(boxes, &same(10, 10)));
        drop(Prior::from_tensor(boxes));
    }
}
