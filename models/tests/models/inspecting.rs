//! What can be told of an ONNX file that nobody described.

use holdfast_models::bundle::{Layout, MediaKind};
use holdfast_models::inspect::{
    Draft, DraftError, Hints, Inspected, Kind, Source, Texts, inspect, manifest,
};
use holdfast_models::outputs::Meaning;
use proptest::prelude::*;

use crate::onnx::{Node, graph, with_data_in};

fn file(shape: &[u64], nodes: &[Node<'_>], output: &[u64]) -> Inspected {
    let size: u64 = output.iter().product();
    let ones = vec![1.0; usize::try_from(size).unwrap()];
    let bytes = graph(shape, nodes, &[("w", output, &ones)]);
    let mut inspected = inspect(&bytes).unwrap();
    // The tests' graphs leave the output's shape open.
    let dim = |size: &u64| holdfast_models::inspect::Dim::Fixed(usize::try_from(*size).unwrap());
    inspected.outputs[0].dims = Some(output.iter().map(dim).collect());
    inspected
}

fn draft(shape: &[u64], last: &str, output: &[u64], hints: &Hints) -> Draft {
    let nodes: [Node<'_>; 2] = [("Add", &["x", "w"], &["a"], &[]), (last, &["a"], &["y"], &[])];
    Draft::of(&file(shape, &nodes, output), hints).unwrap()
}

#[test]
fn kinds_follow_from_the_last_operator_and_the_shapes() {
    let ten =
        Hints { labels: Some((0..10).map(|at| format!("l{at}")).collect()), ..Hints::default() };
    let none = Hints::default();
    for (last, input, output, hints, want) in [
        ("Softmax", &[1, 7][..], &[1, 10][..], &none, Kind::Classification(Meaning::Probabilities)),
        ("LogSoftmax", &[1, 7], &[1, 10], &none, Kind::Classification(Meaning::Logits)),
        ("Relu", &[1, 7], &[1, 10], &ten, Kind::Classification(Meaning::Logits)),
        ("Relu", &[1, 10], &[1, 10], &ten, Kind::Classification(Meaning::Logits)),
        ("Sigmoid", &[1, 7], &[1, 10], &none, Kind::MultiLabel(Meaning::Probabilities)),
        ("Relu", &[1, 7], &[1, 1], &none, Kind::Regression),
        ("Relu", &[1, 7], &[1, 256], &none, Kind::Embedding),
        ("Relu", &[1, 10], &[1, 10], &none, Kind::Reconstruction),
        ("Softmax", &[1, 7], &[1, 5, 10], &none, Kind::Tensor),
        ("Softmax", &[1, 7], &[1, 5, 10], &ten, Kind::Ctc),
        ("Relu", &[1, 3, 64, 64], &[1, 5, 64, 64], &none, Kind::Segmentation),
        ("Sigmoid", &[1, 64, 64, 3], &[1, 64, 64, 1], &none, Kind::Segmentation),
        ("Concat", &[1, 3, 64, 64], &[1, 14, 1000], &ten, Kind::Detection),
        ("Concat", &[1, 3, 64, 64], &[1, 1000, 15], &ten, Kind::Detection),
        ("Concat", &[1, 7], &[1, 1000, 15], &none, Kind::Tensor),
    ] {
        let got = draft(input, last, output, hints);
        assert_eq!(got.kind, want, "{last} {input:?} {output:?}");
        let size = match got.kind {
            Kind::Classification(_) | Kind::MultiLabel(_) | Kind::Regression => {
                output.iter().product()
            }
            Kind::Detection => 10,
            Kind::Segmentation if output[3] == 1 => 2,
            Kind::Segmentation => output[1],
            _ => 0,
        };
        assert_eq!(got.labels.len() as u64, size, "{last} {output:?}");
        let text = manifest(&got, &texts());
        let table = text.parse::<toml::Table>().unwrap();
        assert_eq!(table.contains_key(got.kind.name()), got.table.is_some(), "{text}");
    }
}

#[test]
fn inputs_follow_from_the_shape_and_the_sample() {
    let hints = |sample| Hints { sample, ..Hints::default() };
    let image = |width, height, is_gray, layout| Source::Image { width, height, is_gray, layout };
    let wave = Source::Wave { sample_rate_hz: 16_000, window: 4000 };
    for (shape, sample, want) in [
        (&[1, 3, 64, 48][..], None, image(48, 64, false, Layout::Nchw)),
        (&[1, 64, 48, 3], None, image(48, 64, false, Layout::Nhwc)),
        (&[1, 28, 28, 1], None, image(28, 28, true, Layout::Nhwc)),
        (&[1, 1, 28, 28], None, image(28, 28, true, Layout::Nchw)),
        // Features of a sound, as likely.
        (&[1, 49, 10, 1], None, Source::Numbers),
        (&[1, 49, 10, 1], Some(MediaKind::Image), image(10, 49, true, Layout::Nhwc)),
        (&[1, 28, 28, 1], Some(MediaKind::Audio), Source::Numbers),
        (&[1, 4000], None, Source::Numbers),
        (&[1, 4000], Some(MediaKind::Audio), wave),
        (&[1, 16], None, Source::Numbers),
    ] {
        let got = draft(shape, "Softmax", &[1, 2], &hints(sample));
        assert_eq!(got.inputs[0].source, want, "{shape:?} {sample:?}");
    }
}

#[test]
fn labels_that_come_again_are_told_apart() {
    let labels = ["crane", "heron", "crane", "crane"].map(str::to_owned).to_vec();
    let hints = Hints { labels: Some(labels), ..Hints::default() };
    let got = draft(&[1, 7], "Softmax", &[1, 4], &hints);
    assert_eq!(got.labels, ["crane", "heron", "crane (2)", "crane (3)"]);
}

#[test]
fn labels_that_are_not_as_many_as_there_is_to_name_are_refused() {
    let ten: Vec<String> = (0..10).map(|at| format!("l{at}")).collect();
    for (last, input, output, count, want) in [
        ("Softmax", &[1, 7][..], &[1, 10][..], 9, Some("output y f32 [1, 10] has 10 to name")),
        ("Softmax", &[1, 7], &[1, 10], 0, Some("0 labels were given")),
        ("Softmax", &[1, 7], &[1, 10], 10, None),
        ("Sigmoid", &[1, 7], &[1, 3], 4, Some("has 3 to name")),
        ("Relu", &[1, 7], &[1, 1], 2, Some("has 1 to name")),
        ("Relu", &[1, 7], &[1, 256], 10, Some("(kind = \"embedding\")")),
        ("Relu", &[1, 9], &[1, 9], 10, Some("(kind = \"reconstruction\")")),
        ("Relu", &[1, 7], &[1, 5, 9], 10, Some("(kind = \"tensor\")")),
        ("Concat", &[1, 3, 64, 64], &[1, 20, 1000], 10, Some("has 16 to name")),
        // The background has a name of its own, which may be left out.
        ("Relu", &[1, 3, 64, 64], &[1, 11, 64, 64], 10, None),
        ("Relu", &[1, 3, 64, 64], &[1, 10, 64, 64], 10, None),
        ("Relu", &[1, 3, 64, 64], &[1, 12, 64, 64], 10, Some("12, or 11 without background,")),
    ] {
        let labels = ten.iter().take(count).cloned().collect();
        let hints = Hints { labels: Some(labels), ..Hints::default() };
        let nodes: [Node<'_>; 2] = [("Add", &["x", "w"], &["a"], &[]), (last, &["a"], &["y"], &[])];
        let got = Draft::of(&file(input, &nodes, output), &hints);
        match (got, want) {
            (Ok(draft), None) => assert!(draft.labels.contains(&"l9".to_owned()), "{output:?}"),
            (Err(error), Some(want)) => {
                assert!(!matches!(error, DraftError::OpenShapes(_)));
                assert!(error.to_string().contains(want), "{error}, not {want}");
            }
            (got, want) => panic!("{last} {output:?} {count}: {got:?}, not {want:?}"),
        }
    }
}

/// What a person must fill in is told as a list too, line for line.
#[test]
fn each_line_to_write_is_told() {
    let none = Hints::default();
    for (last, input, output, also) in [
        ("Softmax", &[1, 7][..], &[1, 10][..], &["threshold: from which confidence", "step"][..]),
        ("Sigmoid", &[1, 7], &[1, 3], &["threshold: from which confidence"]),
        ("Relu", &[1, 10], &[1, 10], &["threshold: from which mean error"]),
        ("Relu", &[1, 7], &[1, 1], &["scale: mean and std"]),
        ("Relu", &[1, 3, 64, 64], &[1, 5, 64, 64], &["resize"]),
    ] {
        let got = draft(input, last, output, &none);
        let text = manifest(&got, &texts());
        let lines = text.lines().filter_map(|line| line.strip_prefix("# to write: "));
        // That there is no sample is not of the draft.
        let lines: Vec<&str> = lines.filter(|line| !line.contains("[[sample]]")).collect();
        let noted: Vec<String> = got
            .notes
            .iter()
            .filter(|note| note.is_missing)
            .map(|note| {
                let key = note.key.split_once(": ").map_or(&*note.key, |(_, key)| key);
                format!("{key}: {}", note.what)
            })
            .collect();
        let mut told: Vec<&str> = noted.iter().map(String::as_str).collect();
        let mut written = lines.clone();
        told.sort_unstable();
        written.sort_unstable();
        assert_eq!(told, written, "{last} {output:?}");
        for part in also {
            assert!(lines.iter().any(|line| line.contains(part)), "{last}: {part}: {lines:#?}");
        }
    }
}

#[test]
fn files_that_become_no_bundle_are_refused_by_name() {
    let relu: [Node<'_>; 1] = [("Relu", &["x"], &["y"], &[])];
    let odd: [Node<'_>; 1] = [("Rely", &["x"], &["y"], &[])];
    for (bytes, want) in [
        (graph(&[1, 2], &odd, &[]), "unknown operators: Rely"),
        (graph(&[1, 1 << 30], &relu, &[]), "input x is of shape [1, 1073741824]"),
        (graph(&[1, 1 << 40, 1 << 40], &relu, &[]), "of shape"),
        (graph(&[1; 7], &relu, &[]), "at most 6 dimensions"),
        (with_data_in("../../etc/passwd", &[1, 2]), "lies in another file"),
        (graph(&[1, 2], &[], &[]), "no operators"),
        (b"\x00\x01\x02".to_vec(), "cannot be read as ONNX"),
        (Vec::new(), "cannot be read as ONNX"),
    ] {
        let error = inspect(&bytes).unwrap_err().to_string();
        assert!(error.contains(want), "{error}, not {want}");
    }
}

fn texts() -> Texts {
    Texts {
        name: "made".to_owned(),
        task: "made".to_owned(),
        description: "made".to_owned(),
        trained_by: "nobody".to_owned(),
        date: "2026-01-02".to_owned(),
        onnx: ("model.onnx".to_owned(), false),
        tolerance: 0.5,
        sample: None,
        files: Vec::new(),
    }
}

proptest! {
    #[test]
    fn no_name_breaks_the_manifest(
        label in "\\PC{1,20}|[\\x00-\\x7f]{1,20}", name in "\\PC{1,20}|[\\x00-\\x7f]{1,20}",
    ) {
        let hints = Hints {
            labels: Some(vec![label.clone(), format!("{label}!")]), ..Hints::default()
        };
        let mut got = draft(&[1, 7], "Softmax", &[1, 2], &hints);
        got.outputs[0].name.clone_from(&name);
        got.inputs[0].tensor.name.clone_from(&name);
        for note in &mut got.notes {
            note.what.clone_from(&name);
        }
        let table: toml::Table = manifest(&got, &texts()).parse().unwrap();
        prop_assert_eq!(table["output"][0]["labels"][0].as_str(), Some(&*label));
        prop_assert_eq!(table["output"][0]["name"].as_str(), Some(&*name));
        prop_assert_eq!(table["input"][0]["name"].as_str(), Some(&*name));
    }

    #[test]
    fn no_bytes_are_too_odd_to_look_at(
        cut in 0usize..400, at in 0usize..400, byte in any::<u8>(),
    ) {
        let nodes: [Node<'_>; 2] =
            [("Relu", &["x"], &["a"], &[]), ("Softmax", &["a"], &["y"], &[("axis", 1)])];
        let mut bytes = graph(&[1, 3], &nodes, &[("c", &[2], &[1.0, 2.0])]);
        bytes.truncate(cut.max(1));
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(file) = inspect(&bytes)
            && let Ok(draft) = Draft::of(&file, &Hints::default())
        {
            let parsed = manifest(&draft, &texts()).parse::<toml::Table>();
            prop_assert!(parsed.is_ok(), "{:?}", parsed);
        }
    }
}
