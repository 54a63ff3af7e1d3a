//! What was found, drawn on a picture.

use holdfast_models::MediaType;
use holdfast_models::bundle::Resize;
use holdfast_models::image::annotate::{Mark, PictureFile, annotate};
use holdfast_models::image::{ImagePipeline, Pixels, Placement};
use holdfast_models::outputs::segmentation::Segmentation;
use holdfast_models::outputs::{Region, View};
use image::ExtendedColorType;
use proptest::prelude::*;

use crate::pictures;

const SIZE: (u32, u32) = (160, 120);

fn picture(color: ExtendedColorType) -> Pixels {
    let channels = if color == ExtendedColorType::L8 { 1 } else { 3 };
    let data: Vec<u8> = (0..SIZE.0 * SIZE.1 * channels).map(|at| (at % 251) as u8).collect();
    let file = pictures::png(SIZE.0, SIZE.1, color, &data);
    ImagePipeline::decode(&file, MediaType::Png).unwrap()
}

fn boxed(region: [f32; 4], class: usize, text: &str) -> Mark {
    let [left, top, right, bottom] = region;
    Mark::Box { region: Region { left, top, right, bottom }, class, text: text.to_owned() }
}

fn line(text: &str) -> Mark {
    Mark::Line { text: text.to_owned(), class: None }
}

/// The places of the pixels that differ.
fn changed(before: &Pixels, after: &Pixels) -> Vec<(u32, u32)> {
    assert_eq!(
        (before.width(), before.height(), 3),
        (after.width(), after.height(), after.channels())
    );
    let pairs = before.data().chunks_exact(3).zip(after.data().chunks_exact(3)).zip(0u32..);
    pairs.filter(|((a, b), _)| a != b).map(|(_, at)| (at % SIZE.0, at / SIZE.0)).collect()
}

#[test]
fn a_box_changes_its_edge_and_nothing_else() {
    let before = picture(ExtendedColorType::Rgb8);
    let after = annotate(before.clone(), &[boxed([20.0, 30.0, 60.4, 79.6], 0, "")]);
    let is_edge = |(x, y): (u32, u32)| {
        (20..60).contains(&x) && (30..80).contains(&y) && (x == 20 || x == 59 || y == 30 || y == 79)
    };
    let all = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
    let want: Vec<(u32, u32)> = all.filter(|at| is_edge(*at)).collect();
    assert_eq!(changed(&before, &after), want);
    let nothing = annotate(before.clone(), &[]);
    assert_eq!(nothing, before);
}

#[test]
fn labels_stand_on_their_box_and_inside_of_the_picture() {
    let before = picture(ExtendedColorType::Rgb8);
    for (region, columns, rows) in [
        // Above; in the upper corner where there is no room above; moved to the left.
        ([20.0, 40.0, 100.0, 80.0], 20..100, 31..80),
        ([20.0, 2.0, 100.0, 80.0], 20..100, 2..80),
        ([150.0, 40.0, 160.0, 80.0], 117..160, 31..80),
    ] {
        let after = annotate(before.clone(), &[boxed(region, 2, "dog 97%")]);
        let places = changed(&before, &after);
        let least = (places.iter().map(|at| at.0).min(), places.iter().map(|at| at.1).min());
        assert_eq!(least, (Some(columns.start), Some(rows.start)), "{region:?}");
        let inside = |(x, y): &(u32, u32)| columns.contains(x) && rows.contains(y);
        assert!(places.iter().all(inside), "{region:?}");
    }
}

#[test]
fn letters_are_those_of_the_font() {
    let before = picture(ExtendedColorType::L8);
    let after = annotate(before, &[line("T~é"), line("1")]);
    let drawn = |left: u32, top: u32| -> Vec<String> {
        let dot = |x: u32, y: u32| {
            let at = ((y * SIZE.0 + x) * 3) as usize;
            if after.data()[at..at + 3] == [255; 3] { '#' } else { '.' }
        };
        (top..top + 7).map(|y| (left..left + 5).map(|x| dot(x, y)).collect()).collect()
    };
    let t = ["#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."];
    assert_eq!(drawn(2, 2), t);
    assert_eq!(drawn(8, 2), [".....", ".....", ".#...", "#.#.#", "...#.", ".....", "....."]);
    // What is not ASCII is a box.
    let other = ["#####", "#...#", "#...#", "#...#", "#...#", "#...#", "#####"];
    assert_eq!(drawn(14, 2), other);
    assert_eq!(drawn(2, 12), ["..#..", ".##..", "..#..", "..#..", "..#..", "..#..", ".###."]);
}

#[test]
fn a_mask_tints_its_classes() {
    let before = picture(ExtendedColorType::Rgb8);
    let values = [0.0, 1.0, 1.0, 2.0];
    let placement = Placement::new(Resize::Stretch, SIZE, (64, 64));
    let mask = Segmentation::Index { classes: 3 }
        .decode(View { values: &values, shape: &[1, 2, 2] }, &placement)
        .unwrap();
    let after = annotate(
        before.clone(),
        &[Mark::Tint { size: SIZE, runs: mask.runs().to_vec(), background: Some(0) }],
    );
    let places = changed(&before, &after);
    let is_upper_left = |(x, y): &(u32, u32)| *x < SIZE.0 / 2 && *y < SIZE.1 / 2;
    assert!(!places.iter().any(is_upper_left));
    assert!(places.len() > (SIZE.0 * SIZE.1 * 7 / 10) as usize);
    // Half of the pixel, half of the class's colour: the last pixel is of another than the middle.
    let pixel = |pixels: &Pixels, x: u32, y: u32| -> Vec<i32> {
        let at = ((y * SIZE.0 + x) * 3) as usize;
        pixels.data()[at..at + 3].iter().map(|x| i32::from(*x)).collect()
    };
    let tint = |x, y| -> Vec<i32> {
        let (before, after) = (pixel(&before, x, y), pixel(&after, x, y));
        before.iter().zip(after).map(|(before, after)| 2 * after - before).collect()
    };
    let near = |a: &[i32], b: &[i32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2);
    assert!(near(&tint(100, 10), &tint(10, 100)), "one class has one colour");
    assert!(!near(&tint(100, 10), &tint(100, 100)), "two classes have two");
}

#[test]
fn the_file_is_the_picture() {
    for color in [ExtendedColorType::L8, ExtendedColorType::Rgb8] {
        let pixels = picture(color);
        let file = PictureFile::Png.encode(&pixels).unwrap();
        assert_eq!(ImagePipeline::decode(&file, MediaType::Png).unwrap(), pixels);
    }
    // A JPEG is near, where a picture has no noise.
    let flat = pictures::png(64, 48, ExtendedColorType::Rgb8, &[90, 120, 200].repeat(64 * 48));
    let flat = ImagePipeline::decode(&flat, MediaType::Png).unwrap();
    let file = PictureFile::Jpeg.encode(&flat).unwrap();
    let again = ImagePipeline::decode(&file, MediaType::Jpeg).unwrap();
    let off = flat.data().iter().zip(again.data()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off.is_some_and(|off| off <= 4), "{off:?}");
    assert_eq!((again.width(), again.height()), (64, 48));
}

#[test]
fn a_file_is_what_its_name_says() {
    for (name, want) in [
        ("out.png", Some(PictureFile::Png)),
        ("a/b.c/OUT.PNG", Some(PictureFile::Png)),
        ("out.jpg", Some(PictureFile::Jpeg)),
        ("out.Jpeg", Some(PictureFile::Jpeg)),
        ("out.gif", None),
        ("png", None),
        (".png", None),
        ("out.png/", Some(PictureFile::Png)),
        ("out", None),
    ] {
        assert_eq!(PictureFile::of_name(std::path::Path::new(name)), want, "{name}");
    }
}

proptest! {
    #[test]
    fn no_mark_is_too_odd_to_draw(
        region in prop::array::uniform4(prop_oneof![prop::num::f32::ANY, -50f32..250.0]),
        class in any::<usize>(),
        text in "\\PC{0,80}",
    ) {
        let before = picture(ExtendedColorType::L8);
        let marks = [boxed(region, class, &text), line(&text)];
        let after = annotate(before, &marks);
        prop_assert_eq!(after.data().len(), (SIZE.0 * SIZE.1 * 3) as usize);
    }
}
