//! The class of each pixel.

use holdfast_models::bundle::{Layout, Resize};
use holdfast_models::image::Placement;
use holdfast_models::outputs::segmentation::{Mask, Run, Segmentation};
use holdfast_models::outputs::{Activation, DecodeError, View};
use proptest::prelude::*;

fn run(class: u16, length: u32) -> Run {
    Run { class: Some(class), length }
}

const fn unseen(length: u32) -> Run {
    Run { class: None, length }
}

/// A picture of 4 x 2 that is the tensor.
fn same() -> Placement {
    Placement::new(Resize::Stretch, (4, 2), (4, 2))
}

#[test]
fn the_highest_score_is_the_class() {
    // Pixels of 4 columns and 2 rows, of 3 classes each.
    let pixels = [
        [1.0, 0.0, 0.0],
        [1.0, 1.0, 0.0],
        [-3.0, -2.0, -1.0],
        [0.0, 0.0, f32::INFINITY],
        [f32::NEG_INFINITY, f32::NEG_INFINITY, -9.0],
        [0.0, 5.0, 0.0],
        [0.0, 5.0, 0.0],
        [0.0, 0.0, 0.0],
    ];
    let planes: Vec<f32> = (0..3).flat_map(|k| pixels.iter().map(move |pixel| pixel[k])).collect();
    for (layout, values, shape) in [
        (Layout::Nhwc, pixels.as_flattened(), [1, 2, 4, 3]),
        (Layout::Nchw, &planes[..], [1, 3, 2, 4]),
    ] {
        let scores = Segmentation::Scores { layout, classes: 3 };
        let mask = scores.decode(View { values, shape: &shape }, &same()).unwrap();
        // Class 2 goes on over the end of the first row.
        assert_eq!(mask.runs(), [run(0, 2), run(2, 3), run(1, 2), run(0, 1)], "{layout:?}");
        assert_eq!(mask.areas(), [3, 2, 3]);
        assert_eq!((mask.width(), mask.height()), (4, 2));
    }
}

#[test]
fn one_number_a_pixel_is_a_class_or_a_score() {
    let index = Segmentation::Index { classes: 3 };
    let values = [0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0];
    for shape in [&[2, 4][..], &[1, 2, 4], &[1, 1, 2, 4], &[1, 2, 4, 1]] {
        let mask = index.decode(View { values: &values, shape }, &same()).unwrap();
        assert_eq!(mask.runs(), [run(0, 1), run(1, 2), run(2, 3), run(0, 2)], "{shape:?}");
        assert_eq!(mask.areas(), [3, 2, 3]);
    }
    for (activation, values) in [
        (Activation::None, [0.0, 0.75, 0.74, 1.0, 0.8, 0.9, 0.0, 0.1]),
        (Activation::Sigmoid, [-9.0, 3f32.ln() + 1e-6, 1.0, 9.0, 2.0, 2.0, f32::NEG_INFINITY, 0.0]),
    ] {
        let mask = Segmentation::Threshold { activation, threshold: 0.75 };
        let mask = mask.decode(View { values: &values, shape: &[1, 1, 2, 4] }, &same()).unwrap();
        let want = [run(0, 1), run(1, 1), run(0, 1), run(1, 3), run(0, 2)];
        assert_eq!(mask.runs(), want, "{activation:?}");
        assert_eq!(mask.areas(), [4, 4]);
    }
}

#[test]
fn a_mask_comes_back_to_the_picture() {
    let index = Segmentation::Index { classes: 2 };
    // 0 1
    // 1 1
    let view = View { values: &[0.0, 1.0, 1.0, 1.0], shape: &[1, 2, 2] };
    for (resize, picture, want) in [
        (Resize::Stretch, (6, 2), vec![run(0, 3), run(1, 9)]),
        (Resize::Stretch, (1, 4), vec![run(1, 4)]),
        // Columns 2 and 3 of 6.
        (
            Resize::Crop,
            (6, 2),
            vec![unseen(2), run(0, 1), run(1, 1), unseen(4), run(1, 2), unseen(2)],
        ),
        // The picture lies on the middle half of the tensor's rows, so on both rows of the mask.
        (Resize::Letterbox(0), (8, 4), vec![run(0, 4), run(1, 4), run(0, 4), run(1, 20)]),
    ] {
        let mask = index.decode(view, &Placement::new(resize, picture, (100, 100))).unwrap();
        assert_eq!(mask.runs(), want, "{resize:?} {picture:?}");
    }
}

#[test]
fn what_is_no_mask_is_refused() {
    let refused = |form: Segmentation, values: &[f32], shape: &[usize]| {
        form.decode(View { values, shape }, &same()).unwrap_err()
    };
    let scores = Segmentation::Scores { layout: Layout::Nchw, classes: 2 };
    let index = Segmentation::Index { classes: 2 };
    let score = Segmentation::Threshold { activation: Activation::None, threshold: 0.5 };
    for (form, shape) in [
        (scores, &[1, 3, 1, 1][..]),
        (scores, &[2, 2, 2]),
        (scores, &[2, 0, 4]),
        (index, &[3]),
        (score, &[1, 3, 1, 2]),
    ] {
        let count = shape.iter().product::<usize>().min(3);
        let error = refused(form, &[0.0; 3][..count], shape);
        assert!(matches!(error, DecodeError::Shape { .. }), "{shape:?}: {error}");
    }
    for (form, value) in [(scores, f32::NAN), (score, f32::NAN), (score, f32::INFINITY)] {
        let error = refused(form, &[0.0, value], form_shape(form));
        assert!(matches!(error, DecodeError::NotFinite { .. }), "{value}: {error}");
    }
    for value in [2.0, -1.0, 0.5, f32::NAN, f32::INFINITY, 1e30] {
        let error = refused(index, &[0.0, value], &[1, 2]);
        assert!(matches!(error, DecodeError::OutOfRange { what: "a class", .. }), "{error}");
    }
    let error = refused(score, &[0.0, 2.0], &[1, 2]);
    assert!(error.to_string().contains("gave 2 as a score: must be 0..=1"), "{error}");
    let odd = Segmentation::Threshold { activation: Activation::None, threshold: f32::NAN };
    assert!(matches!(refused(odd, &[0.0], &[1, 1]), DecodeError::Parameter { .. }));
    let none = Segmentation::Index { classes: 0 };
    assert!(matches!(refused(none, &[0.0], &[1, 1]), DecodeError::Parameter { .. }));
}

fn form_shape(form: Segmentation) -> &'static [usize] {
    match form {
        Segmentation::Scores { .. } => &[2, 1, 1],
        _ => &[1, 2],
    }
}

#[test]
fn a_mask_of_too_many_runs_is_refused() {
    let index = Segmentation::Index { classes: 2 };
    let (width, height) = (2100, 2000);
    let values: Vec<f32> = (0..width * height).map(|at| f32::from(u8::from(at % 2 == 0))).collect();
    let view = View { values: &values, shape: &[1, height, width] };
    let side = (width as u32, height as u32);
    let got = index.decode(view, &Placement::new(Resize::Stretch, side, side));
    assert!(
        matches!(got, Err(DecodeError::TooManyRuns(_))),
        "{:?}",
        got.map(|mask| mask.runs().len())
    );
}

/// The class of each pixel as the mask's runs tell it.
fn pixels(mask: &Mask) -> Vec<Option<u16>> {
    let pixel = |run: &Run| std::iter::repeat_n(run.class, run.length as usize);
    mask.runs().iter().flat_map(pixel).collect()
}

/// The class of one pixel, by whole numbers: where its middle lies in the tensor, and that in the
/// output.
fn class_slowly(
    placement: &Placement,
    (x, y): (u32, u32),
    output: &[u16],
    (columns, rows): (u64, u64),
) -> Option<u16> {
    let (seen, on) = (placement.seen(), placement.on());
    let inside = (seen.left..seen.left + seen.width).contains(&x)
        && (seen.top..seen.top + seen.height).contains(&y);
    // In parts of 1 / (2 * seen.width), then of 1 / (2 * seen.width * tensor.width).
    let column = |x: u32| {
        let across = (2 * u64::from(x - seen.left) + 1) * u64::from(on.width);
        let across = across + u64::from(on.left) * 2 * u64::from(seen.width);
        across * columns / (2 * u64::from(seen.width) * u64::from(placement.tensor().0))
    };
    let row = |y: u32| {
        let down = (2 * u64::from(y - seen.top) + 1) * u64::from(on.height);
        let down = down + u64::from(on.top) * 2 * u64::from(seen.height);
        down * rows / (2 * u64::from(seen.height) * u64::from(placement.tensor().1))
    };
    inside.then(|| output[(row(y) * columns + column(x)) as usize])
}

proptest! {
    #[test]
    fn each_pixel_has_the_class_at_its_middle(
        classes in prop::collection::vec(0u16..3, 36),
        (columns, rows) in (1usize..=6, 1usize..=6),
        picture in (1u32..40, 1u32..40),
        tensor in (1u32..20, 1u32..20),
        resize in prop::sample::select(vec![Resize::Stretch, Resize::Crop, Resize::Letterbox(7)]),
    ) {
        let classes = &classes[..columns * rows];
        let values: Vec<f32> = classes.iter().map(|class| f32::from(*class)).collect();
        let placement = Placement::new(resize, picture, tensor);
        let index = Segmentation::Index { classes: 3 };
        let mask = index.decode(View { values: &values, shape: &[rows, columns] }, &placement).unwrap();
        let got = pixels(&mask);
        let mut areas = [0u64; 3];
        let mut at = got.iter();
        for y in 0..picture.1 {
            for x in 0..picture.0 {
                let size = (columns as u64, rows as u64);
                let want = class_slowly(&placement, (x, y), classes, size);
                prop_assert_eq!(at.next(), Some(&want), "{} {}", x, y);
                want.iter().for_each(|class| areas[usize::from(*class)] += 1);
            }
        }
        prop_assert_eq!(at.next(), None);
        prop_assert_eq!(mask.areas(), areas);
        prop_assert!(mask.runs().windows(2).all(|pair| pair[0].class != pair[1].class));
    }

    #[test]
    fn both_layouts_give_the_class_that_sorting_gives(
        pixels_ in prop::collection::vec(prop::array::uniform4(-3i8..3), 8),
    ) {
        let straight: Vec<f32> = pixels_.as_flattened().iter().map(|x| f32::from(*x)).collect();
        let turned: Vec<f32> =
            (0..4).flat_map(|k| pixels_.iter().map(move |pixel| f32::from(pixel[k]))).collect();
        let want: Vec<Option<u16>> = pixels_.iter().map(|pixel| {
            let mut order: Vec<usize> = (0..4).collect();
            order.sort_by_key(|class| -pixel[*class]);
            Some(order[0] as u16)
        }).collect();
        for (layout, values, shape) in
            [(Layout::Nhwc, straight, [1, 2, 4, 4]), (Layout::Nchw, turned, [1, 4, 2, 4])]
        {
            let scores = Segmentation::Scores { layout, classes: 4 };
            let mask = scores.decode(View { values: &values, shape: &shape }, &same()).unwrap();
            prop_assert_eq!(&pixels(&mask), &want);
        }
    }

    #[test]
    fn any_numbers_in_any_shape_end_in_a_sentence_or_a_mask(
        values in prop::collection::vec(prop::num::f32::ANY, 0..40),
        shape in prop::collection::vec(0usize..7, 0..5),
        classes in 0u16..4,
    ) {
        for form in [
            Segmentation::Scores { layout: Layout::Nchw, classes },
            Segmentation::Scores { layout: Layout::Nhwc, classes },
            Segmentation::Index { classes },
            Segmentation::Threshold { activation: Activation::Sigmoid, threshold: 0.5 },
        ] {
            for shape in [&shape[..], &[values.len(), 1], &[1, values.len()]] {
                if let Ok(mask) = form.decode(View { values: &values, shape }, &same()) {
                    prop_assert_eq!(pixels(&mask).len(), 8);
                }
            }
        }
    }
}
