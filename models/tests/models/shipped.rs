//! The bundles that this repository ships: whole, reproduced by the embedded runtime, and as
//! accurate as their cards say.

use std::fs;
use std::path::Path;

use holdfast_models::{Bundle, Goldens, Loading, Media, Model, Tract};

use crate::reference::{self, rows};

/// Every shipped bundle; a fault in one fails the test that asks.
fn shipped() -> Vec<Bundle> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles");
    let mut dirs: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    dirs.sort();
    assert!(!dirs.is_empty());
    dirs.iter().map(|dir| Bundle::open(dir).unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn variants(bundle: &Bundle) -> impl Iterator<Item = Model> + '_ {
    bundle.variants().iter().map(|v| {
        let loading =
            Loading { variant: Some(v.name()), goldens: Goldens::All, ..Loading::default() };
        Model::load_as(bundle, &Tract, loading).unwrap()
    })
}

#[test]
fn every_variant_gives_its_golden_outputs() {
    for bundle in shipped() {
        for model in variants(&bundle) {
            let samples = bundle.samples().len();
            println!("{} {}: {} goldens", bundle.name(), model.variant(), model.goldens_checked());
            assert_eq!(model.goldens_checked(), samples, "{}: a golden a sample", bundle.name());
        }
    }
}

#[test]
fn every_sample_is_right_or_not_sure() {
    for bundle in shipped() {
        for mut model in variants(&bundle) {
            let mut right = 0;
            for sample in bundle.samples() {
                let bytes = bundle.read(&sample.file).unwrap();
                let answer = model.infer(&Media::detect(bytes, None).unwrap()).unwrap();
                let top = &answer.classes()[0];
                let is_right = Some(&top.label) == sample.label.as_ref();
                right += usize::from(is_right);
                assert!(
                    is_right || top.confidence < bundle.threshold(),
                    "{} {}: {} is taken for {} with confidence {}",
                    bundle.name(),
                    model.variant(),
                    sample.file,
                    top.label,
                    top.confidence
                );
            }
            let of = bundle.samples().len();
            println!("{} {}: {right} of {of} samples", bundle.name(), model.variant());
            assert!(10 * right >= 9 * of, "{} {}: {right}/{of}", bundle.name(), model.variant());
        }
    }
}

#[test]
fn bundles_are_as_small_as_promised() {
    for bundle in shipped() {
        let is_large = bundle.name().ends_with("-large");
        for variant in bundle.variants() {
            let file = bundle.files().iter().find(|f| f.path == variant.file).unwrap();
            let most = if is_large { 8_000_000 } else { 150_000 };
            if is_large || variant.name() == "int8" {
                let (name, bytes) = (bundle.name(), file.bytes);
                assert!(bytes <= most, "{name} {}: {bytes} bytes", variant.name());
            }
        }
    }
}

#[test]
fn commands_of_other_speakers_are_heard_as_often_as_the_cards_say() {
    let Some(dir) = reference::folder("accuracy on 96 recordings of other speakers") else {
        return;
    };
    let recordings = rows(&dir.join("data/kws_wav/labels.csv"));
    for bundle in shipped().iter().filter(|b| b.task() == "voice-commands") {
        let least = if bundle.name().ends_with("-large") { 0.92 } else { 0.88 };
        for mut model in variants(bundle) {
            let mut right = 0u8;
            for row in &recordings {
                let bytes = fs::read(dir.join("data/kws_wav").join(&row[0])).unwrap();
                let answer = model.infer(&Media::detect(bytes, None).unwrap()).unwrap();
                right += u8::from(answer.classes()[0].label == row[2]);
            }
            let (name, variant) = (bundle.name(), bundle.variant(Some(model.variant())).unwrap());
            let accuracy = f32::from(right) / 96.0;
            println!("{name} {}: {right}/96, stated {}", variant.name(), variant.accuracy);
            assert!(accuracy >= least, "{name} {}: {right}/96, at least {least}", variant.name());
            assert!(
                (accuracy - variant.accuracy).abs() <= 1.1 / 96.0,
                "{name} {}: {right}/96, its card says {}",
                variant.name(),
                variant.accuracy
            );
        }
    }
}

#[test]
fn a_command_takes_at_most_15_ms_of_compute() {
    for bundle in shipped().iter().filter(|b| b.name() == "voice-commands") {
        let bytes = bundle.read(&bundle.samples()[0].file).unwrap();
        let media = Media::detect(bytes, None).unwrap();
        for mut model in variants(bundle) {
            let answers = (0..20).map(|_| model.infer(&media).unwrap().timings);
            let best = answers.min_by_key(|timings| timings.total()).unwrap();
            println!("{} {}: {best:?}", bundle.name(), model.variant());
            assert!(best.total().as_millis() < 15, "{best:?}");
        }
    }
}
