//! Bytes that mean harm, or were cut off on the way: a typed error each, no panic, bounded memory.

use holdfast_models::audio::AudioPipeline;
use holdfast_models::image::ImagePipeline;
use holdfast_models::{Bundle, Media, MediaType};
use proptest::prelude::*;

use crate::counted::largest_allocation;
use crate::{made, onnx, pictures, runtimes};

/// What a decoder may take at once: the stated limit, and a little.
const MOST: usize = 260 << 20;

/// Decodes whatever it is; the answer does not matter.
fn decode_anything(bytes: &[u8]) {
    drop(AudioPipeline::decode(bytes));
    for media in [MediaType::Jpeg, MediaType::Png, MediaType::Webp] {
        drop(ImagePipeline::decode(bytes, media));
    }
    drop(Media::detect(bytes.to_vec(), None));
}

fn valid_files() -> Vec<(&'static str, Vec<u8>)> {
    let samples = made::tone(8_000, 440.0, 0.05);
    let [(_, jpeg), (_, png), (_, webp)] = pictures::files(24, 16, Some(6));
    vec![("WAV", made::wav(8_000, 2, &samples)), ("JPEG", jpeg), ("PNG", png), ("WebP", webp)]
}

#[test]
fn a_file_that_was_cut_off_is_refused_wherever_it_was_cut() {
    for (name, file) in valid_files() {
        let decode = |bytes: &[u8]| match name {
            "WAV" => AudioPipeline::decode(bytes).is_ok(),
            "JPEG" => ImagePipeline::decode(bytes, MediaType::Jpeg).is_ok(),
            "PNG" => ImagePipeline::decode(bytes, MediaType::Png).is_ok(),
            _ => ImagePipeline::decode(bytes, MediaType::Webp).is_ok(),
        };
        assert!(decode(&file), "{name} whole");
        // The end chunk of a PNG holds nothing; all that matters lies before it.
        let end = if name == "PNG" { file.len() - 12 } else { file.len() };
        for cut in 0..end {
            let largest = largest_allocation(|| {
                assert!(!decode(&file[..cut]), "{name} cut at {cut} of {}", file.len());
            });
            assert!(largest < 8 << 20, "{name} cut at {cut}: {largest} bytes at once");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_danger(
        magic in prop::sample::select(vec![
            &b""[..], b"RIFF\xFF\0\0\0WAVEfmt \x10\0\0\0\x01\0", b"RIFF\xFF\0\0\0WEBPVP8X",
            b"RIFF\xFF\0\0\0WEBPVP8L", b"\xFF\xD8\xFF\xE0\0\x10JFIF\0", b"\xFF\xD8\xFF\xC2",
            b"\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let bytes = [magic, &rest].concat();
        let largest = largest_allocation(|| decode_anything(&bytes));
        prop_assert!(largest < MOST, "{largest} bytes at once");
    }

    #[test]
    fn damaged_files_are_no_danger(
        which in 0usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let (_, mut file) = valid_files().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let largest = largest_allocation(|| decode_anything(&file));
        prop_assert!(largest < MOST, "{largest} bytes at once");
    }

    #[test]
    fn damaged_graphs_are_no_danger(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut graph = onnx::graph(
            &[1, 4],
            &[("MatMul", &["x", "w"], &["h"], &[]), ("Softmax", &["h"], &["y"], &[("axis", 1)])],
            &[("w", &[4, 3], &[0.5; 12])],
        );
        for (at, byte) in &damage {
            let at = at.index(graph.len());
            graph[at] = *byte;
        }
        if damage.len() % 2 == 1 {
            graph.truncate(cut.index(graph.len()));
        }
        drop(runtimes::run(&graph, ("x", &[1, 4]), ("y", &[1, 3]), &[1.0; 4]));
    }

    #[test]
    fn damaged_manifests_are_no_danger(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..8),
    ) {
        let mut text: Vec<char> = crate::bundles::MANIFEST.chars().collect();
        for (at, with) in damage {
            let at = at.index(text.len());
            text[at] = with;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bundle.toml"), String::from_iter(text)).unwrap();
        // The files are missing, so there is always a fault.
        let error = Bundle::open(dir.path()).unwrap_err();
        prop_assert!(!error.faults.is_empty() && !error.to_string().is_empty());
    }
}
