//! Pictures of every kind: how they are read, turned upright, resized and laid out.

use holdfast_models::MediaType;
use holdfast_models::bundle::{Channels, Filter, ImageFront, Layout, Resize};
use holdfast_models::image::{ImageError, ImagePipeline, Pixels};
use holdfast_models::quantisation::Form;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};

const RED: [u8; 3] = [230, 20, 20];
const GREEN: [u8; 3] = [20, 200, 40];
const BLUE: [u8; 3] = [20, 30, 220];
const WHITE: [u8; 3] = [250, 250, 250];

pub(crate) fn png(width: u32, height: u32, color: ExtendedColorType, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(data, width, height, color).unwrap();
    file
}

/// Four quadrants of one colour each: red and green above blue and white.
fn quadrants(width: u32, height: u32) -> Vec<u8> {
    let color = |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => RED,
        (false, true) => GREEN,
        (true, false) => BLUE,
        (false, false) => WHITE,
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| color(x, y))).collect()
}

/// The same picture in each format, with an EXIF orientation.
pub(crate) fn files(width: u32, height: u32, orientation: Option<u8>) -> [(MediaType, Vec<u8>); 3] {
    let pixels = quadrants(width, height);
    let color = ExtendedColorType::Rgb8;
    let exif = |encoder: &mut dyn FnMut(Vec<u8>)| {
        if let Some(orientation) = orientation {
            // One entry: tag 0x0112, a short, one of them.
            let mut tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            tiff.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
            encoder(tiff);
        }
    };
    let (mut jpeg, mut png, mut webp) = (Vec::new(), Vec::new(), Vec::new());
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 95);
    exif(&mut |tiff| encoder.set_exif_metadata(tiff).unwrap());
    encoder.write_image(&pixels, width, height, color).unwrap();
    let mut encoder = PngEncoder::new(&mut png);
    exif(&mut |tiff| encoder.set_exif_metadata(tiff).unwrap());
    encoder.write_image(&pixels, width, height, color).unwrap();
    let mut encoder = WebPEncoder::new_lossless(&mut webp);
    exif(&mut |tiff| encoder.set_exif_metadata(tiff).unwrap());
    encoder.write_image(&pixels, width, height, color).unwrap();
    [(MediaType::Jpeg, jpeg), (MediaType::Png, png), (MediaType::Webp, webp)]
}

/// The colour in the middle of each quadrant.
fn corners(pixels: &Pixels) -> [[u8; 3]; 4] {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    [(w / 4, h / 4), (3 * w / 4, h / 4), (w / 4, 3 * h / 4), (3 * w / 4, 3 * h / 4)].map(
        |(x, y)| {
            let at = (y * w + x) * 3;
            pixels.data()[at..at + 3].try_into().unwrap()
        },
    )
}

fn is_near(got: [[u8; 3]; 4], want: [[u8; 3]; 4]) -> bool {
    got.iter().flatten().zip(want.iter().flatten()).all(|(a, b)| a.abs_diff(*b) <= 12)
}

#[test]
fn every_exif_orientation_stands_upright() {
    let upright = [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ];
    for (orientation, want) in upright {
        for (media, file) in files(64, 32, Some(orientation)) {
            let pixels = ImagePipeline::decode(&file, media).unwrap();
            let size = if orientation < 5 { (64, 32) } else { (32, 64) };
            assert_eq!((pixels.width(), pixels.height()), size, "{media}, {orientation}");
            let got = corners(&pixels);
            assert!(is_near(got, want), "{media}, orientation {orientation}: {got:?}");
        }
    }
    for orientation in [None, Some(0), Some(9)] {
        for (media, file) in files(64, 32, orientation) {
            let pixels = ImagePipeline::decode(&file, media).unwrap();
            assert!(is_near(corners(&pixels), [RED, GREEN, BLUE, WHITE]), "{media}");
        }
    }
}

#[test]
fn every_colour_type_is_read() {
    let wide =
        |values: &[u16]| -> Vec<u8> { values.iter().flat_map(|v| v.to_ne_bytes()).collect() };
    use ExtendedColorType as C;
    let cases: [(&str, C, Vec<u8>, &[u8]); 8] = [
        ("grey", C::L8, vec![7, 250], &[7, 250]),
        ("grey, alpha", C::La8, vec![7, 0, 250, 255], &[7, 250]),
        ("colour", C::Rgb8, vec![1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]),
        ("colour, alpha", C::Rgba8, vec![1, 2, 3, 0, 4, 5, 6, 9], &[1, 2, 3, 4, 5, 6]),
        ("wide grey", C::L16, wide(&[0x0707, 0xFFFF]), &[7, 255]),
        ("wide grey, alpha", C::La16, wide(&[0x0707, 0, 0xFFFF, 9]), &[7, 255]),
        ("wide colour", C::Rgb16, wide(&[0, 257, 128, 129, 65_535, 385]), &[0, 1, 0, 1, 255, 1]),
        (
            "wide colour, alpha",
            C::Rgba16,
            wide(&[0, 257, 514, 0, 771, 1028, 1285, 0]),
            &[0, 1, 2, 3, 4, 5],
        ),
    ];
    for (name, color, data, want) in cases {
        let pixels = ImagePipeline::decode(&png(2, 1, color, &data), MediaType::Png).unwrap();
        assert_eq!(pixels.data(), want, "{name}");
        assert_eq!(pixels.channels(), want.len() / 2, "{name}");
    }
}

/// A JPEG as printers make them, 16 x 16 in four inks, all of one colour: C 0, M 100 %, Y 100 %.
#[test]
fn a_cmyk_jpeg_is_read() {
    let file = include_bytes!("../data/cmyk.jpg");
    let pixels = ImagePipeline::decode(file, MediaType::Jpeg).unwrap();
    assert_eq!((pixels.width(), pixels.height(), pixels.channels()), (16, 16, 3));
    let [r, g, b] = corners(&pixels)[0];
    assert!(r > 240 && g < 15 && b < 15, "{:?}", [r, g, b]);
}

/// A front end of pictures that are stretched, in colour.
pub(crate) fn front(width: u32, height: u32) -> ImageFront {
    ImageFront {
        width,
        height,
        channels: Channels::Rgb,
        resize: Resize::Stretch,
        filter: Filter::Bilinear,
        layout: Layout::Nchw,
        mean: vec![0.0],
        std: vec![1.0],
    }
}

fn fitted(front: &ImageFront, width: u32, height: u32) -> Pixels {
    let file = png(width, height, ExtendedColorType::Rgb8, &quadrants(width, height));
    let mut pipeline = ImagePipeline::new(front, &Form::PLAIN);
    pipeline.fit(ImagePipeline::decode(&file, MediaType::Png).unwrap()).unwrap().clone()
}

#[test]
fn pictures_are_stretched_cropped_or_framed() {
    let want = [RED, GREEN, BLUE, WHITE];
    for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
        let got = fitted(&ImageFront { filter, ..front(16, 16) }, 90, 40);
        assert!(is_near(corners(&got), want), "{filter:?}");
    }
    // The middle 40 x 40 of 90 x 40 has the same quadrants; its left edge is red.
    let cropped = fitted(&ImageFront { resize: Resize::Crop, ..front(20, 20) }, 90, 40);
    assert!(is_near(corners(&cropped), want));
    let tall = fitted(&ImageFront { resize: Resize::Crop, ..front(20, 10) }, 30, 90);
    assert_eq!((tall.width(), tall.height()), (20, 10));
    assert!(is_near(corners(&tall), want));
    // 80 x 40 fits 20 x 20 as 20 x 10, five rows of padding above and below.
    let framed = fitted(&ImageFront { resize: Resize::Letterbox(114), ..front(20, 20) }, 80, 40);
    let row = |y: usize| &framed.data()[y * 60..(y + 1) * 60];
    for y in [0, 4, 15, 19] {
        assert_eq!(row(y), [114; 60], "row {y}");
    }
    assert!(row(5)[..3].iter().zip(RED).all(|(a, b)| a.abs_diff(b) < 3), "{:?}", &row(5)[..3]);
    assert!(row(14)[57..].iter().zip(WHITE).all(|(a, b)| a.abs_diff(b) < 3));
    // A line of 1 pixel's width still has a pixel.
    let thin = fitted(&ImageFront { resize: Resize::Letterbox(0), ..front(8, 8) }, 1000, 2);
    assert_eq!(thin.data().len(), 8 * 8 * 3);
}

/// Noise that the expected files were made from, 41 x 29 pixels.
fn noise() -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(41 * 29 * 3).collect()
}

#[test]
fn filters_are_pillows() {
    // Image.resize of Pillow 10.4: smaller (17 x 11) and larger (50 x 40), one file each.
    let cases: [(Filter, (u32, u32), &[u8]); 8] = [
        (Filter::Nearest, (17, 11), include_bytes!("../data/nearest_17x11.rgb")),
        (Filter::Nearest, (50, 40), include_bytes!("../data/nearest_50x40.rgb")),
        (Filter::Bilinear, (17, 11), include_bytes!("../data/bilinear_17x11.rgb")),
        (Filter::Bilinear, (50, 40), include_bytes!("../data/bilinear_50x40.rgb")),
        (Filter::Bicubic, (17, 11), include_bytes!("../data/bicubic_17x11.rgb")),
        (Filter::Bicubic, (50, 40), include_bytes!("../data/bicubic_50x40.rgb")),
        (Filter::Lanczos3, (17, 11), include_bytes!("../data/lanczos3_17x11.rgb")),
        (Filter::Lanczos3, (50, 40), include_bytes!("../data/lanczos3_50x40.rgb")),
    ];
    let file = png(41, 29, ExtendedColorType::Rgb8, &noise());
    for (filter, (width, height), want) in cases {
        let mut pipeline =
            ImagePipeline::new(&ImageFront { filter, ..front(width, height) }, &Form::PLAIN);
        let got = pipeline.fit(ImagePipeline::decode(&file, MediaType::Png).unwrap()).unwrap();
        let off = got.data().iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert_eq!(got.data().len(), want.len());
        assert!(off <= 1, "{filter:?} to {width} x {height}: off by {off}");
    }
}

#[test]
fn grey_is_pillows_luma() {
    // What Pillow's convert("L") gives.
    let cases = [
        ([255, 0, 0], 76),
        ([0, 255, 0], 150),
        ([0, 0, 255], 29),
        ([255; 3], 255),
        ([12, 200, 99], 132),
    ];
    let mut pipeline =
        ImagePipeline::new(&ImageFront { channels: Channels::Gray, ..front(1, 1) }, &Form::PLAIN);
    for (rgb, want) in cases {
        let file = png(1, 1, ExtendedColorType::Rgb8, &rgb);
        let got = pipeline.fit(ImagePipeline::decode(&file, MediaType::Png).unwrap()).unwrap();
        assert_eq!(got.data(), [want], "{rgb:?}");
    }
}

#[test]
fn tensors_have_the_bundles_layout_and_scale() {
    let pixels = [10, 20, 30, 40, 50, 60];
    let file = png(2, 1, ExtendedColorType::Rgb8, &pixels);
    let tensor = |front: &ImageFront, file: &[u8]| {
        let mut pipeline = ImagePipeline::new(front, &Form::PLAIN);
        let size = (front.width * front.height) as usize * front.channels.count();
        let mut tensor = vec![0.0_f32; size];
        pipeline.fit(ImagePipeline::decode(file, MediaType::Png).unwrap()).unwrap();
        pipeline.tensor(&mut tensor);
        tensor.iter().map(|x| (x * 255.0 * 100.0).round() / 100.0).collect::<Vec<f32>>()
    };
    let nhwc = ImageFront { layout: Layout::Nhwc, ..front(2, 1) };
    assert_eq!(tensor(&front(2, 1), &file), [10.0, 40.0, 20.0, 50.0, 30.0, 60.0]);
    assert_eq!(tensor(&nhwc, &file), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
    let scaled = ImageFront {
        mean: vec![10.0 / 255.0, 20.0 / 255.0, 0.0],
        std: vec![1.0, 0.5, 2.0],
        ..nhwc.clone()
    };
    assert_eq!(tensor(&scaled, &file), [0.0, 0.0, 15.0, 30.0, 60.0, 30.0]);
    // A grey picture fills the three channels of a coloured tensor.
    let grey = png(2, 1, ExtendedColorType::L8, &[7, 9]);
    assert_eq!(tensor(&nhwc, &grey), [7.0, 7.0, 7.0, 9.0, 9.0, 9.0]);
    assert_eq!(tensor(&front(2, 1), &grey), [7.0, 9.0, 7.0, 9.0, 7.0, 9.0]);
    // And a coloured one afterwards is coloured again.
    let mut pipeline = ImagePipeline::new(&nhwc, &Form::PLAIN);
    for (file, want) in [(&grey, 1), (&file, 3), (&grey, 1)] {
        let fitted = pipeline.fit(ImagePipeline::decode(file, MediaType::Png).unwrap()).unwrap();
        assert_eq!(fitted.channels(), want);
    }
}

#[test]
fn bombs_are_refused_before_they_are_decoded() {
    let [(_, mut jpeg), (_, mut png), (_, mut webp)] = files(32, 32, None);
    png[16..24].copy_from_slice(&[0, 0, 0xC3, 0x50, 0, 0, 0xC3, 0x50]);
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    // VP8L: 14 bits of width less 1, 14 bits of height less 1, after the signature byte.
    webp[21..25].copy_from_slice(&(0x3FFE_u32 << 14 | 0x3FFE).to_le_bytes());
    for (media, file, side) in [
        (MediaType::Png, png, 50_000),
        (MediaType::Jpeg, jpeg, 65_500),
        (MediaType::Webp, webp, 16_383),
    ] {
        let largest = crate::counted::largest_allocation(|| {
            let error = ImagePipeline::decode(&file, media).unwrap_err();
            assert_eq!(error, ImageError::TooLarge { media, width: side, height: side });
        });
        assert!(largest < 1 << 20, "{media}: {largest} bytes were taken at once");
    }
}
