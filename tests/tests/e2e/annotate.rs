//! `infer --annotate`: the picture with the answer drawn on it.

use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast_models::MediaType;
use holdfast_models::image::{ImagePipeline, Pixels};
use holdfast_tests::bundle::Made;
use holdfast_tests::reference;

fn agent(args: &[&str]) -> (i32, String) {
    let output = Command::new(super::program()).arg("agent").args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn decoded(path: &Path, media: MediaType) -> Pixels {
    ImagePipeline::decode(&fs::read(path).unwrap(), media).unwrap()
}

/// The columns and rows of the pixels that differ.
fn changed(before: &Pixels, after: &Pixels) -> Vec<(u32, u32)> {
    assert_eq!((before.width(), before.height()), (after.width(), after.height()));
    let pairs = before.data().chunks_exact(3).zip(after.data().chunks_exact(3)).zip(0u32..);
    let width = before.width();
    pairs.filter(|((a, b), _)| a != b).map(|(_, at)| (at % width, at / width)).collect()
}

#[test]
fn a_class_stands_in_the_corner_and_the_rest_of_the_picture_stays() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("part.jpg");
    fs::write(&picture, super::sample("part-inspection", |name| name.ends_with(".jpg"))).unwrap();
    let to = dir.path().join("drawn.png");
    let bundles = reference::bundles();
    let (file, out) = (picture.to_str().unwrap(), to.to_str().unwrap());
    let infer = ["infer", "part-inspection", "--bundles", bundles.to_str().unwrap()];
    let (code, said) = agent(&[&infer[..], &[file, "--annotate", out]].concat());
    assert_eq!(code, 0, "{said}");
    let (before, after) = (decoded(&picture, MediaType::Jpeg), decoded(&to, MediaType::Png));
    let places = changed(&before, &after);
    assert!(places.len() > 100, "{} pixels are drawn", places.len());
    assert!(places.iter().all(|(_, y)| *y < before.height() / 8), "one line of text");

    // By its name it is a JPEG, and by another name nothing at all.
    let (jpeg, gif) = (dir.path().join("drawn.jpeg"), dir.path().join("drawn.gif"));
    let (jpeg_out, gif_out) = (jpeg.to_str().unwrap(), gif.to_str().unwrap());
    let (code, said) = agent(&[&infer[..], &[file, "--annotate", jpeg_out]].concat());
    assert_eq!(code, 0, "{said}");
    let drawn = decoded(&jpeg, MediaType::Jpeg);
    assert_eq!((drawn.width(), drawn.height()), (before.width(), before.height()));
    let (code, said) = agent(&[&infer[..], &[file, "--annotate", gif_out]].concat());
    assert!(code == 64 && said.contains("must end in one of .png, .jpg, .jpeg"), "{code} {said}");
    assert!(!gif.exists());

    let wav = dir.path().join("word.wav");
    fs::write(&wav, super::sample("voice-commands", |_| true)).unwrap();
    let none = dir.path().join("none.png");
    let (wav, none_out) = (wav.to_str().unwrap(), none.to_str().unwrap());
    let words = ["infer", "voice-commands", "--bundles", bundles.to_str().unwrap()];
    let (code, said) = agent(&[&words[..], &[wav, "--annotate", none_out]].concat());
    assert!(code == 1 && said.contains("is no picture"), "{code} {said}");
    let (code, said) = agent(&[&infer[..], &[file, file, "--annotate", none_out]].concat());
    assert!(code == 64 && said.contains("--annotate takes one picture"), "{code} {said}");
    let nowhere = dir.path().join("no/such/folder.png");
    let (code, said) =
        agent(&[&infer[..], &[file, "--annotate", nowhere.to_str().unwrap()]].concat());
    assert!(code == 1 && said.contains("cannot write"), "{code} {said}");
    assert!(!none.exists());
}

#[test]
fn a_face_has_a_box_around_it_and_the_rest_of_the_picture_stays() {
    let Some(reference) = reference::reference("a box around a face") else { return };
    let photo = reference.join("data/images/grace_hopper.jpg");
    let onnx = fs::read(reference.join("models/face_ultralight_rfb_320_fp32.onnx")).unwrap();
    let sample = fs::read(&photo).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("faces");
    fs::create_dir(&bundle).unwrap();
    let made = Made {
        onnx: &onnx,
        kind: "detection",
        tables: holdfast_tests::kinds::FACES,
        label: "",
        sample: ("sample.jpg", &sample),
        // Shares: each is within 1.0 of any other.
        golden: &[0.5; 4420 * 2],
        tolerance: 1.0,
    };
    made.write(&bundle).unwrap();
    let to = dir.path().join("drawn.png");
    let (file, out) = (photo.to_str().unwrap(), to.to_str().unwrap());
    let bundles = bundle.to_str().unwrap();
    let args = ["infer", "reference", file, "--bundles", bundles, "--annotate", out, "--json"];
    let (code, said) = agent(&args);
    assert_eq!(code, 0, "{said}");
    let (before, after) = (decoded(&photo, MediaType::Jpeg), decoded(&to, MediaType::Png));
    let places = changed(&before, &after);
    // golden/face_rfb_320_fp32_detections.json, of 512 x 600 pixels.
    let [left, top, right, bottom] = [172, 122, 359, 334];
    let near = |at: u32, side: u32| at.abs_diff(side) <= 4;
    let (middle, centre) = ((left + right) / 2, (top + bottom) / 2);
    for (x, y) in [(left, centre), (right, centre), (middle, bottom)] {
        let is_drawn = places.iter().any(|at| near(at.0, x) && near(at.1, y));
        assert!(is_drawn, "nothing is drawn at {x}, {y}");
    }
    let is_label =
        |(x, y): &(u32, u32)| *y + 24 >= top && *y < top + 4 && *x + 4 >= left && *x < right;
    let is_line = |(x, y): &(u32, u32)| {
        let across = *x + 4 >= left && *x <= right + 4;
        let down = *y + 4 >= top && *y <= bottom + 4;
        let inside = *x > left + 8 && *x + 8 < right && *y > top + 8 && *y + 8 < bottom;
        across && down && !inside
    };
    let beside: Vec<_> = places.iter().filter(|at| !is_label(at) && !is_line(at)).collect();
    assert!(beside.is_empty(), "{} pixels beside the box, as {:?}", beside.len(), beside[0]);
}
