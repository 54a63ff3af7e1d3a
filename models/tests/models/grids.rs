//! Boxes out of the grids of YOLO's family.

use holdfast_models::outputs::grid::{
    AnchorForm, AnchorHead, Anchored, Distances, GridOrder, Listed,
};
use holdfast_models::outputs::region::{BoxForm, Unit};
use holdfast_models::outputs::{Activation, DecodeError, Detection, View};
use proptest::prelude::*;

use crate::detection::{is_near, rules, same, sides};

/// A number that a sigmoid makes almost 1, and one that it makes almost 0.
const YES: f32 = 30.0;
const NO: f32 = -30.0;

/// Lays numbers that are in the order [anchor, row, column, number] out in another one.
fn laid_out(
    order: GridOrder,
    [anchors, rows, columns, numbers]: [usize; 4],
    values: &[f32],
) -> (Vec<f32>, Vec<usize>) {
    let mut out = vec![0.0; values.len()];
    let mut from = values.iter();
    for a in 0..anchors {
        for r in 0..rows {
            for c in 0..columns {
                for n in 0..numbers {
                    let at = match order {
                        GridOrder::ChannelsFirst => ((a * numbers + n) * rows + r) * columns + c,
                        GridOrder::ChannelsLast => ((r * columns + c) * anchors + a) * numbers + n,
                        GridOrder::AnchorsFirst => ((a * rows + r) * columns + c) * numbers + n,
                    };
                    out[at] = *from.next().unwrap();
                }
            }
        }
    }
    let shape = match order {
        GridOrder::ChannelsFirst => vec![1, anchors * numbers, rows, columns],
        GridOrder::ChannelsLast => vec![1, rows, columns, anchors * numbers],
        GridOrder::AnchorsFirst => vec![1, anchors, rows, columns, numbers],
    };
    (out, shape)
}

const ORDERS: [GridOrder; 3] =
    [GridOrder::ChannelsFirst, GridOrder::ChannelsLast, GridOrder::AnchorsFirst];

fn anchored(order: GridOrder, form: AnchorForm) -> Anchored {
    let head = |stride, anchors: &[(f32, f32)]| AnchorHead { stride, anchors: anchors.to_vec() };
    Anchored {
        heads: vec![head(8.0, &[(10.0, 20.0), (16.0, 4.0)]), head(16.0, &[(30.0, 6.0)])],
        order,
        form,
        classes: 2,
        rules: rules(0.5, 0.5),
    }
}

#[test]
fn cells_become_boxes() {
    for order in ORDERS {
        // Two anchors, 2 rows of 3 cells, 7 numbers; and one anchor, 1 row of 2 cells.
        let mut first = vec![NO; 2 * 2 * 3 * 7];
        // Anchor 1, row 1, column 2: the second class.
        let at = ((3 + 2) + 2 * 3) * 7;
        first[at..at + 7].copy_from_slice(&[0.0, 0.0, 0.0, 2f32.ln(), YES, NO, YES]);
        let mut second = vec![NO; 2 * 7];
        // Column 1: the first class, as sure as the sigmoid of 0 and of ln 4 is: 0.5 * 0.8.
        second[7..].copy_from_slice(&[0.0, 0.0, 0.0, 0.0, 0.0, 4f32.ln(), NO]);
        let (first, first_shape) = laid_out(order, [2, 2, 3, 7], &first);
        let (second, second_shape) = laid_out(order, [1, 1, 2, 7], &second);
        let heads = [
            View { values: &first, shape: &first_shape },
            View { values: &second, shape: &second_shape },
        ];
        // Centre (2.5, 1.5) * 8 = (20, 12) and (1.5, 0.5) * 16 = (24, 8); V3: 16 x 4 * 2 and 30 x 6;
        // V5 squares 2 / 1 and 2 * 2/3.
        let tall = 4.0 * 16.0 / 9.0;
        for (form, one, other) in [
            (AnchorForm::V3, [12.0, 8.0, 28.0, 16.0], [9.0, 5.0, 39.0, 11.0]),
            (
                AnchorForm::V5,
                [12.0, 12.0 - tall / 2.0, 28.0, 12.0 + tall / 2.0],
                [9.0, 5.0, 39.0, 11.0],
            ),
        ] {
            let mut detector = anchored(order, form);
            let found = detector.decode(&heads, &same(64, 64)).unwrap();
            assert_eq!(found.len(), 1, "{order:?} {form:?}: {found:?}");
            assert!(is_near(&found[0].region, one), "{order:?} {form:?}: {found:?}");
            assert_eq!(found[0].class, 1);
            detector.rules = rules(0.3, 0.5);
            let found = detector.decode(&heads, &same(64, 64)).unwrap();
            assert_eq!(found.len(), 2, "{order:?} {form:?}: {found:?}");
            assert!(is_near(&found[1].region, other), "{order:?} {form:?}: {found:?}");
            assert!((found[1].score - 0.4).abs() < 1e-6 && found[1].class == 0);
        }
    }
}

#[test]
fn distances_are_means_of_distributions() {
    for order in ORDERS {
        let mut detector = Distances {
            strides: vec![8.0],
            bins: 4,
            order,
            classes: 1,
            activation: Activation::Sigmoid,
            rules: rules(0.5, 0.5),
        };
        // 2 rows of 2 cells; row 1, column 0: distances 1, 2, 1.5 (even between all) and 3.
        let mut cells = vec![NO; 4 * 17];
        let cell = [[NO, YES, NO, NO], [NO, NO, YES, NO], [5.0, 5.0, 5.0, 5.0], [NO, NO, NO, YES]];
        cells[2 * 17..2 * 17 + 16].copy_from_slice(cell.as_flattened());
        cells[2 * 17 + 16] = YES;
        let (values, shape) = laid_out(order, [1, 2, 2, 17], &cells);
        let found =
            detector.decode(&[View { values: &values, shape: &shape }], &same(64, 64)).unwrap();
        // Middle (0.5, 1.5) * 8 = (4, 12).
        assert_eq!(found.len(), 1, "{order:?}");
        let want = [0.0, 0.0, 4.0 + 12.0, 12.0 + 24.0];
        assert!(is_near(&found[0].region, want), "{order:?}: {found:?}");

        detector.bins = 1;
        detector.activation = Activation::None;
        let (values, shape) = laid_out(order, [1, 1, 1, 5], &[0.25, 0.125, 0.5, 1.0, 0.75]);
        let found =
            detector.decode(&[View { values: &values, shape: &shape }], &same(64, 64)).unwrap();
        assert_eq!(sides(&found[0].region), [2.0, 3.0, 8.0, 12.0], "{order:?}");
        assert_eq!(found[0].score, 0.75);
    }
}

fn listed(is_transposed: bool, has_objectness: bool) -> Listed {
    Listed {
        is_transposed,
        form: BoxForm::Centre,
        unit: Unit::Pixel,
        has_objectness,
        classes: 2,
        activation: Activation::None,
        rules: rules(0.25, 0.5),
    }
}

#[test]
fn lists_are_read_in_both_orders() {
    // YOLOv5: x, y, w, h, whether there is anything, two classes.
    let rows = [[20.0, 30.0, 8.0, 4.0, 0.5, 0.25, 0.75], [50.0, 50.0, 8.0, 4.0, 0.2, 1.0, 1.0]];
    let view = View { values: rows.as_flattened(), shape: &[1, 2, 7] };
    let found = listed(false, true).decode(view, &same(64, 64)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(sides(&found[0].region), [16.0, 28.0, 24.0, 32.0]);
    assert_eq!((found[0].class, found[0].score), (1, 0.375));
    // YOLOv8: a column a place, x, y, w, h, two classes.
    let columns = [20.0, 50.0, 30.0, 50.0, 8.0, 8.0, 4.0, 4.0, 0.25, 0.1, 0.75, 0.2];
    let view = View { values: &columns, shape: &[1, 6, 2] };
    let mut list = listed(true, false);
    list.rules.every_class = false;
    let found = list.decode(view, &same(64, 64)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(sides(&found[0].region), [16.0, 28.0, 24.0, 32.0]);
    assert_eq!((found[0].class, found[0].score), (1, 0.75));
}

#[test]
fn what_is_no_grid_is_refused() {
    let detector = anchored(GridOrder::ChannelsFirst, AnchorForm::V5);
    let good = vec![NO; 14];
    let second = vec![NO; 7];
    let shape = |got: Result<Vec<Detection>, DecodeError>| {
        matches!(got, Err(DecodeError::Shape { .. } | DecodeError::Count { .. }))
    };
    let heads = |first: &[usize], second_shape: &[usize]| {
        let first = View { values: &good, shape: first };
        detector.decode(&[first, View { values: &second, shape: second_shape }], &same(64, 64))
    };
    assert_eq!(heads(&[1, 14, 1, 1], &[1, 7, 1, 1]), Ok(Vec::new()));
    assert!(shape(heads(&[1, 1, 1, 14], &[1, 7, 1, 1])));
    assert!(shape(heads(&[1, 14, 1, 1], &[1, 7, 2, 1])));
    assert!(shape(detector.decode(&[], &same(64, 64))));
    let mut odd = second.clone();
    odd[4] = f32::NAN;
    let got = detector.decode(
        &[View { values: &good, shape: &[14, 1, 1] }, View { values: &odd, shape: &[7, 1, 1] }],
        &same(64, 64),
    );
    assert!(matches!(got, Err(DecodeError::NotFinite { what: "a score", .. })), "{got:?}");
    for (stride, anchor) in [(0.0, 1.0), (f32::NAN, 1.0), (8.0, f32::INFINITY), (8.0, -1.0)] {
        let mut odd = detector.clone();
        odd.heads[1] = AnchorHead { stride, anchors: vec![(anchor, 1.0)] };
        let got = odd.decode(
            &[
                View { values: &good, shape: &[14, 1, 1] },
                View { values: &second, shape: &[7, 1, 1] },
            ],
            &same(64, 64),
        );
        assert!(matches!(got, Err(DecodeError::Parameter { .. })), "{got:?}");
    }
}

proptest! {
    #[test]
    fn every_order_gives_the_same_boxes(
        values in prop::collection::vec(-4f32..4.0, 2 * 3 * 2 * 7),
        form in prop::sample::select(vec![AnchorForm::V3, AnchorForm::V5]),
    ) {
        let list: Vec<Vec<Detection>> = ORDERS.iter().map(|order| {
            let mut detector = anchored(*order, form);
            detector.heads.truncate(1);
            detector.rules = rules(0.2, 0.4);
            let (values, shape) = laid_out(*order, [2, 3, 2, 7], &values);
            detector.decode(&[View { values: &values, shape: &shape }], &same(64, 64)).unwrap()
        }).collect();
        prop_assert_eq!(&list[0], &list[1]);
        prop_assert_eq!(&list[0], &list[2]);
    }

    #[test]
    fn a_list_turned_over_gives_the_same_boxes(
        rows in prop::collection::vec(prop::array::uniform7(0f32..1.0), 1..20),
        has_objectness in any::<bool>(),
    ) {
        let mut list = listed(false, has_objectness);
        list.classes = if has_objectness { 2 } else { 3 };
        list.unit = Unit::Fraction;
        let straight = View { values: rows.as_flattened(), shape: &[rows.len(), 7] };
        let straight = list.decode(straight, &same(64, 64)).unwrap();
        let turned: Vec<f32> =
            (0..7).flat_map(|k| rows.iter().map(move |row| row[k])).collect();
        list.is_transposed = true;
        let turned = View { values: &turned, shape: &[1, 7, rows.len()] };
        prop_assert_eq!(straight, list.decode(turned, &same(64, 64)).unwrap());
    }

    #[test]
    fn any_numbers_end_in_a_sentence_or_boxes_inside(
        values in prop::collection::vec(prop::num::f32::ANY, 2 * 2 * 7),
        order in prop::sample::select(ORDERS.to_vec()),
        form in prop::sample::select(vec![AnchorForm::V3, AnchorForm::V5]),
        bins in 1usize..4,
    ) {
        let (values, shape) = laid_out(order, [2, 2, 1, 7], &values);
        let view = View { values: &values, shape: &shape };
        let mut detector = anchored(order, form);
        detector.heads.truncate(1);
        let distances = Distances {
            strides: vec![8.0], bins, order, classes: 14 - 4 * bins,
            activation: Activation::Sigmoid, rules: rules(0.0, 0.5),
        };
        let flat = View { values: &values, shape: &[4, 7] };
        for found in [
            detector.decode(&[view], &same(64, 64)),
            distances.decode(&[view], &same(64, 64)),
            listed(false, true).decode(flat, &same(64, 64)),
            listed(true, false).decode(flat, &same(64, 64)),
        ] {
            for found in found.unwrap_or_default() {
                let [left, top, right, bottom] = sides(&found.region);
                prop_assert!(0.0 <= left && left < right && right <= 64.0);
                prop_assert!(0.0 <= top && top < bottom && bottom <= 64.0);
            }
        }
    }
}
