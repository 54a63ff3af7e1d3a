//! Where a picture lies in its tensor, against what the resizing really does.

use holdfast_models::MediaType;
use holdfast_models::bundle::{Filter, ImageFront, Resize};
use holdfast_models::image::{ImagePipeline, Placement};
use holdfast_models::outputs::Region;
use holdfast_models::outputs::region::Unit;
use holdfast_models::quantisation::Form;
use image::ExtendedColorType;
use proptest::prelude::*;

use crate::pictures::{self, png};

fn front(width: u32, height: u32, resize: Resize) -> ImageFront {
    ImageFront { resize, filter: Filter::Nearest, ..pictures::front(width, height) }
}

/// The smallest box around the pixels of this value.
fn around(width: u32, bytes: &[u8], value: u8) -> Option<[u32; 4]> {
    let places = bytes.chunks_exact(3).zip(0u32..).filter(|(pixel, _)| pixel[0] == value);
    places.map(|(_, at)| (at % width, at / width)).fold(None, |all, (x, y)| {
        let [l, t, r, b] = all.unwrap_or([x, y, x, y]);
        Some([l.min(x), t.min(y), r.max(x + 1), b.max(y + 1)])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_seen_in_the_tensor_is_found_in_the_picture(
        (width, height) in (40u32..90, 40u32..90),
        (tensor_width, tensor_height) in (40u32..90, 40u32..90),
        resize in prop::sample::select(vec![Resize::Stretch, Resize::Crop, Resize::Letterbox(9)]),
        (left, top) in (0.2f32..0.5, 0.2f32..0.5),
    ) {
        // White, with a black box of a third of each side.
        let left = (left * width as f32) as u32;
        let top = (top * height as f32) as u32;
        let (right, bottom) = (left + width / 3, top + height / 3);
        let pixels: Vec<u8> = (0..width * height).flat_map(|at| {
            let (x, y) = (at % width, at / width);
            let is_in = (left..right).contains(&x) && (top..bottom).contains(&y);
            [if is_in { 0 } else { 255 }; 3]
        }).collect();
        let file = png(width, height, ExtendedColorType::Rgb8, &pixels);
        let pixels = ImagePipeline::decode(&file, MediaType::Png).unwrap();
        let front = front(tensor_width, tensor_height, resize);
        let mut pipeline = ImagePipeline::new(&front, &Form::PLAIN);
        let fitted = pipeline.fit(pixels).unwrap().data().to_vec();
        let placement = pipeline.placement();
        prop_assert_eq!(placement.picture(), (width, height));
        prop_assert_eq!(placement.tensor(), (tensor_width, tensor_height));
        if let Some([l, t, r, b]) = around(tensor_width, &fitted, 0) {
            let found = [l, t, r, b].map(|side| side as f32);
            let region = Region { left: found[0], top: found[1], right: found[2], bottom: found[3] };
            let back = region.in_picture(Unit::Pixel, &placement).unwrap();
            let seen = placement.seen();
            let cut = |at: u32, from: u32, size: u32| at.clamp(from, from + size) as f32;
            let want = [
                cut(left, seen.left, seen.width), cut(top, seen.top, seen.height),
                cut(right, seen.left, seen.width), cut(bottom, seen.top, seen.height),
            ];
            // One pixel of the coarser of the two.
            let near = |from: u32, to: u32| 1.01 * (from as f32 / to as f32).max(1.0);
            let across = near(seen.width, placement.on().width);
            let down = near(seen.height, placement.on().height);
            prop_assert!((back.left - want[0]).abs() <= across, "{:?} {:?}", back, want);
            prop_assert!((back.top - want[1]).abs() <= down, "{:?} {:?}", back, want);
            prop_assert!((back.right - want[2]).abs() <= across, "{:?} {:?}", back, want);
            prop_assert!((back.bottom - want[3]).abs() <= down, "{:?} {:?}", back, want);
        }
    }

    #[test]
    fn the_parts_lie_inside(
        picture in (0u32..20_000, 0u32..20_000),
        tensor in (0u32..5000, 0u32..5000),
        resize in prop::sample::select(vec![Resize::Stretch, Resize::Crop, Resize::Letterbox(9)]),
    ) {
        let placement = Placement::new(resize, picture, tensor);
        for (part, whole) in
            [(placement.seen(), placement.picture()), (placement.on(), placement.tensor())]
        {
            prop_assert!(part.width > 0 && part.left + part.width <= whole.0, "{:?}", part);
            prop_assert!(part.height > 0 && part.top + part.height <= whole.1, "{:?}", part);
        }
    }
}
