//! Bundles of every kind of answer, from whatever a caller may send to the answer or the fault.

use holdfast_models::outputs::{Anomaly, Label, Quantity};
use holdfast_models::{
    Askers, Bundle, InferError, Inference, Media, MediaKind, MediaType, Model, Outcome, Told, Tract,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{counted, made, onnx, pictures};

/// The tables that tell what a graph takes and gives; y is x where that is not below 0.
const TABLES: &str = "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [\"batch\", 4]\n\
    [input.tensor]\n[[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [\"batch\", 4]\n";

const LABELS: &str = "labels = [\"a\", \"b\", \"c\", \"d\"]\n";

fn manifest(kind: &str, tables: &str, label: &str) -> String {
    format!(
        "format = 1\nname = \"tiny\"\nversion = \"1.2.3\"\ntask = \"look\"\nkind = {kind:?}\n\
         description = \"Gives the numbers back.\"\nlicence = \"MIT\"\n[provenance]\n\
         trained_by = \"no one\"\ndata = [\"none\"]\nseed = 1\ndate = \"2026-11-20\"\n{tables}\n\
         [[variant]]\nname = \"fp32\"\nprecision = \"fp32\"\nfile = \"model.onnx\"\n\
         tolerance = 0.001\naccuracy = 1.0\n[[sample]]\nfile = \"sample.json\"\n{label}\n"
    )
}

/// Opens a bundle of a graph that gives its input back, which is there as long as its folder, or the
/// text of its faults.
fn open(kind: &str, tables: &str, label: &str) -> Result<(Bundle, TempDir), String> {
    let dir = tempfile::tempdir().unwrap();
    let golden = made::goldens(&[("sample.json", "fp32", &[0.0, 0.5, 0.25, 0.0])]);
    let relu = onnx::graph(&[0, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    let files: [(&str, &[u8]); 3] = [
        ("model.onnx", &relu),
        ("sample.json", b"{\"inputs\": {\"x\": [0, 0.5, 0.25, -1]}}"),
        ("golden.toml", golden.as_bytes()),
    ];
    made::bundle(dir.path(), &manifest(kind, tables, label), &files);
    let bundle = Bundle::open(dir.path()).map_err(|error| error.to_string())?;
    Ok((bundle, dir))
}

fn model(kind: &str, tables: &str) -> Model {
    let label = if kind == "classification" { "label = \"a\"" } else { "" };
    let (bundle, _dir) =
        open(kind, tables, label).unwrap_or_else(|error| panic!("{kind}: {error}"));
    Model::load(&bundle, None, &Tract).unwrap_or_else(|error| panic!("{kind}: {error:?}"))
}

fn ask(model: &mut Model, body: &[u8], said: Option<&str>) -> Result<Inference, InferError> {
    let media = Media::detect_for(body.to_vec(), said, Some(MediaKind::Tensor)).unwrap();
    model.infer(&media)
}

fn quantities(values: [f32; 4]) -> Outcome {
    let pairs = ["a", "b", "c", "d"].into_iter().zip(values);
    Outcome::Quantities(
        pairs.map(|(label, value)| Quantity { label: label.to_owned(), value }).collect(),
    )
}

#[test]
fn every_kind_gives_its_answer() {
    let body = b"{\"inputs\": {\"x\": [3, 0, 4, -1]}}";
    let with = |lines: &str| format!("{TABLES}{lines}");
    let answer = |kind: &str, lines: &str| ask(&mut model(kind, &with(lines)), body, None).unwrap();

    let lines = format!("{LABELS}meaning = \"logits\"\nthreshold = 0.5\n");
    let classes = answer("classification", &lines);
    assert_eq!(classes.classes()[0].label, "c");
    assert!(classes.outcome.confidence().is_some_and(|c| (0.6..0.8).contains(&c)), "{classes:?}");

    let lines = format!("{LABELS}meaning = \"logits\"\nthreshold = 0.5\nset_from = 0.9\n");
    let Outcome::Labels(labels, confidence) = answer("multi-label", &lines).outcome else {
        panic!("no labels")
    };
    let is_set = |label: &Label| label.is_set;
    assert_eq!(labels.iter().map(is_set).collect::<Vec<_>>(), [true, false, true, false]);
    // Both 0s are a probability of 0.5, half way between what is told apart and no at all.
    assert!((confidence - (0.5 + 0.4 / 1.8)).abs() < 1e-6, "{confidence}");

    let lines = format!("{LABELS}mean = 1.0\nstd = [1.0, 2.0, 3.0, 4.0]\n");
    let values = answer("regression", &lines);
    assert_eq!(values.outcome, quantities([4.0, 1.0, 13.0, 1.0]));
    assert_eq!(values.outcome.confidence(), None);

    let vector = answer("embedding", "normalise = \"l2\"\n").outcome;
    assert_eq!(vector, Outcome::Embedding(vec![0.6, 0.0, 0.8, 0.0]));

    // Only the -1 does not come back.
    let lines = "of = \"x\"\nerror = \"squared\"\nthreshold = 0.2\n";
    let score = answer("reconstruction", lines).outcome;
    assert_eq!(score, Outcome::Anomaly(Anomaly { score: 0.25, threshold: 0.2 }));

    let Outcome::Tensors(tensors) = answer("tensor", "").outcome else { panic!("no tensors") };
    let (name, tensor) = &tensors[0];
    assert_eq!((&**name, tensor.shape(), tensors.len()), ("y", &[1, 4][..], 1));
    assert_eq!(tensor.of::<f32>(), Some(&[3.0, 0.0, 4.0, 0.0][..]));
}

/// What `numpy.save` writes of an array [1, 4] of f32.
fn npy(values: [f32; 4]) -> Vec<u8> {
    let mut head = String::from("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }");
    while (10 + head.len() + 1) % 64 != 0 {
        head.push(' ');
    }
    head.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(head.len()).unwrap().to_le_bytes());
    file.extend(head.as_bytes());
    file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    file
}

#[test]
fn numbers_are_the_same_in_whatever_form_they_come() {
    let mut model = model("regression", &format!("{TABLES}{LABELS}"));
    let raw: Vec<u8> = [0.5f32, 1.0, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let npy = npy([0.5, 1.0, 2.0, 3.0]);
    let bodies: [(&str, &[u8], Option<&str>); 12] = [
        ("in their shape", b"{\"inputs\": {\"x\": [[0.5, 1, 2, 3]]}}", None),
        ("in one row", b" {\"inputs\":{\"x\":[0.5,1e0,2,3]}}", Some("application/json")),
        ("alone", b"[0.5, 1, 2, 3]", Some("application/json; charset=utf-8")),
        ("as CSV", b"0.5,1,2,3\n", Some("text/csv")),
        ("as CSV of which nothing is said", b"0.5,1,2,3", None),
        ("as CSV with a head", b"p,q,r,s\r\n0.5, 1, 2, 3\r\n", Some("text/csv")),
        ("as CSV with semicolons", b"p;q;r;s\n0.5;1;2;3\n", Some("text/csv")),
        ("as CSV with a mark at its begin", b"\xef\xbb\xbf0.5\t1\t2\t3\n", Some("text/csv")),
        ("in a column", b"0.5\n1\n2\n3", Some("text/csv")),
        ("raw", &raw, Some("application/octet-stream")),
        ("raw, and nothing is said", &raw, Some("application/x-www-form-urlencoded")),
        ("as NPY", &npy, None),
    ];
    for (case, body, said) in bodies {
        let got = ask(&mut model, body, said).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(got.outcome, quantities([0.5, 1.0, 2.0, 3.0]), "{case}");
        assert_eq!(got.recorded, None, "{case}");
    }
}

#[test]
fn a_body_that_is_wrong_is_told_what_is_wrong_with_which_input() {
    let mut model = model("regression", &format!("{TABLES}{LABELS}"));
    let nan = f32::NAN.to_le_bytes().repeat(4);
    let bodies: [(&[u8], &str, &str); 25] = [
        (b"{\"inputs\": {\"x\": [1, 2, 3]}}", "application/json", "input x is 3 numbers"),
        (b"{\"inputs\": {\"x\": [1, 2, 3, 4, 5]}}", "application/json", "f32 [batch, 4]"),
        (b"{\"inputs\": {\"x\": [[[1, 2], [3, 4]]]}}", "application/json", "of shape [1, 2, 2]"),
        (b"{\"inputs\": {\"x\": [[1, 2], [3]]}}", "application/json", "input \"x\": a list of 1"),
        (b"{\"inputs\": {\"x\": [1, [2]]}}", "application/json", "a list stands beside a number"),
        (b"{\"inputs\": {\"x\": [1, null, 2, 3]}}", "application/json", "input \"x\": "),
        (b"{\"inputs\": {\"x\": [1e39, 1, 2, 3]}}", "application/json", "at 0"),
        (b"{\"inputs\": {\"x\": \"word\"}}", "application/json", "input x is a text"),
        (b"{\"inputs\": {\"x\": {\"b64\": \"AAAA\"}}}", "application/json", "input x is a file"),
        (b"{\"inputs\": {\"x\": {\"b65\": \"\"}}}", "application/json", "b64"),
        (b"{\"inputs\": {\"z\": [1]}}", "application/json", "there is no input \"z\": send x"),
        (b"{\"inputs\": {}}", "application/json", "input x is missing"),
        (b"{\"inputs\": {\"x\": 1, \"x\": 2}}", "application/json", "twice"),
        (b"{\"input\": {}}", "application/json", "no key \"input\""),
        (b"{\"inputs\": {\"x\": [1, 2", "application/json", "the body is not"),
        (b"1,2,3,4\n5,6", "text/csv", "line 2"),
        (b"1,2,3,4\n1,2,three,4", "text/csv", "line 2 of the CSV has \"three\""),
        (b"1,2,three,4\n1,2,3,4", "text/csv", "line 1 of the CSV has \"three\""),
        (b",2,3,4\n1,2,3,4", "text/csv", "line 1 of the CSV has \"\""),
        (b"p,q\n1,2,3,4", "text/csv", "line 2 of the CSV has 4 values, the first has 2"),
        (b"1;2,5;3;4", "text/csv", "line 1 of the CSV has \"2,5\""),
        (b"0,5;1,0;2,0;3,0\n0,5;1,0;2,0;3,0", "text/csv", "line 2 of the CSV has \"0,5\""),
        (b"1,2,inf,4", "text/csv", "has the value inf"),
        (b"12345", "application/octet-stream", "5 bytes is not a whole number of f32"),
        (&nan, "application/octet-stream", "input x: value 0 is NaN"),
    ];
    for (body, said, text) in bodies {
        let error = ask(&mut model, body, Some(said)).unwrap_err();
        let is_told = matches!(error, InferError::Media(_)) && error.to_string().contains(text);
        assert!(is_told, "{}: {error}", body.escape_ascii());
    }
    let many = vec![0u8; (4 << 24) + 4];
    let largest = counted::largest_allocation(|| {
        let media = Media::trusted(MediaType::Raw, many);
        let error = model.infer(&media).unwrap_err();
        assert!(error.to_string().contains("more than 16777216 numbers"), "{error}");
    });
    assert!(largest < 1 << 20, "{largest} bytes at once");
    let media = Media::detect(made::wav(16_000, 1, &[0; 64]), None).unwrap();
    let error = model.infer(&media).unwrap_err();
    assert!(error.to_string().contains("the task takes tensor, the body is audio"), "{error}");
}

#[test]
fn a_recording_of_numbers_is_answered_window_by_window() {
    let lines = format!(
        "{LABELS}meaning = \"probabilities\"\nthreshold = 0.5\nset_from = 0.6\nrelease = 0.3\n"
    );
    let tables = TABLES.replace("[input.tensor]", "[input.tensor]\nstep = 2");
    let mut model = model("multi-label", &format!("{tables}{lines}"));
    // Windows of four, two apart: a is 0.7, 0.4, 0.1, 0.9; b is 0 but for the last.
    let body = b"0.7,0\n0.4,0\n0.1,0\n0.9,1\n0.2,0";
    let got = ask(&mut model, body, Some("text/csv")).unwrap();
    let recorded = got.recorded.unwrap();
    assert_eq!((recorded.windows, recorded.width, recorded.step_ms), (4, 4, None));
    let spans: Vec<_> = recorded
        .spans
        .iter()
        .map(|span| (span.label.as_str(), span.first, span.end, span.confidence))
        .collect();
    // c and d are what a and b are one window later.
    let want =
        [("a", 0, 2, 0.7), ("c", 2, 3, 0.9), ("d", 2, 3, 1.0), ("a", 3, 4, 0.9), ("b", 3, 4, 1.0)];
    assert_eq!(spans, want);
    let Outcome::Labels(labels, _) = got.outcome else { panic!("no labels") };
    // Without [windows] the largest of each counts.
    assert_eq!(labels[0].probability, 0.9);
    for (pool, want) in [("mean", 0.525), ("max", 0.9), ("last", 0.9)] {
        let tables = format!("{tables}{lines}[windows]\npool = {pool:?}\n");
        let mut model = self::model("multi-label", &tables);
        let got = ask(&mut model, body, Some("text/csv")).unwrap();
        let Outcome::Labels(labels, _) = got.outcome else { panic!("no labels") };
        assert!((labels[0].probability - want).abs() < 1e-6, "{pool}: {labels:?}");
    }
    // Whoever went away meanwhile is not worked for any longer.
    let media = Media::detect_for(body.to_vec(), Some("text/csv"), Some(MediaKind::Tensor));
    let mut left = 2;
    let stopped = model.infer_while(&media.unwrap(), || {
        left -= 1;
        left > 0
    });
    assert!(matches!(stopped, Err(InferError::Unwanted)), "{stopped:?}");
    assert_eq!(left, 0, "it was asked before each window");
    let error = ask(&mut model, b"1,2,3,4,5\n", Some("text/csv")).unwrap_err().to_string();
    let want = "5 numbers of shape [1, 5], 1 behind the last whole window: its windows are 2 numbers \
                apart, as `step` of the bundle's [input.tensor] says; 4 or 6 would fit";
    assert!(error.contains(want), "{error}");
    let many = "0,".repeat(2 * 10_002);
    let error = ask(&mut model, many.as_bytes(), Some("text/csv")).unwrap_err();
    assert!(error.to_string().contains("10001 windows: send at most 10000"), "{error}");
}

/// What askers heard early, and who of them went away.
#[derive(Default)]
struct Heard {
    early: Vec<Told>,
    gone: Option<usize>,
}

impl Askers for Heard {
    fn is_wanted(&self, at: usize) -> bool {
        self.gone != Some(at)
    }

    fn tell(&mut self, told: Told) {
        self.early.push(told);
    }
}

#[test]
fn requests_that_run_together_get_what_each_would_get_alone() {
    let lines = format!("{LABELS}meaning = \"probabilities\"\nthreshold = 0.5\nset_from = 0.6\n");
    let tables = TABLES.replace("[input.tensor]", "[input.tensor]\nstep = 2");
    let mut model = model("multi-label", &format!("{tables}{lines}"));
    let bodies =
        ["0.7,0,0.4,0,0.1,0,0.9,1", "0.3,0.2,0.1,0", "1,2,3", "0,0,0.5,0.5,0.9,0.1", "1,1,1,1"];
    let media = bodies.map(|body| {
        let bytes = body.as_bytes().to_vec();
        Media::detect_for(bytes, Some("text/csv"), Some(MediaKind::Tensor)).unwrap()
    });
    let alone: Vec<_> = media.iter().map(|media| model.infer(media)).collect();
    // The same room is used again, for fewer and for more.
    for count in [5, 2, 4] {
        let asked: Vec<&Media> = media.iter().take(count).collect();
        let mut heard = Heard { early: Vec::new(), gone: Some(4) };
        let last = model.infer_together(&asked, &mut heard).unwrap();
        let places = |told: &[Told]| told.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        // What cannot be read first, then by how many windows each has: 3, 1, none, 2, and nobody's.
        let want: &[usize] = if count == 2 { &[1] } else { &[2, 4, 1, 3] };
        let want: Vec<usize> = want.iter().copied().filter(|at| *at < count).collect();
        assert_eq!((places(&heard.early), places(&last)), (want, vec![0]));
        for (at, told) in heard.early.into_iter().chain(last) {
            match (told, &alone[at]) {
                (Ok(told), Ok(alone)) if at != 4 => {
                    assert_eq!(
                        (told.outcome, &told.recorded),
                        (alone.outcome.clone(), &alone.recorded)
                    );
                }
                (Err(told), Err(alone)) => assert_eq!(told.to_string(), alone.to_string()),
                (told, _) => assert!(matches!(told, Err(InferError::Unwanted)), "{at}: {told:?}"),
            }
        }
    }
}

#[test]
fn answers_that_cannot_be_pooled_take_one_window() {
    let mut model = model("tensor", TABLES);
    let error = ask(&mut model, b"1,2,3,4,5,6,7,8", Some("text/csv")).unwrap_err();
    assert!(error.to_string().contains("input x has 2 windows: send at most 1"), "{error}");
}

#[test]
fn numbers_are_normalised_over_the_window() {
    let tables =
        TABLES.replace("[input.tensor]", "[input.tensor]\nmean = [1.0, 2.0]\nstd = [2.0, 0.5]");
    let mut model = model_of_normalised(&tables);
    let got = ask(&mut model, b"[3, 3, 5, 2.5]", None).unwrap();
    assert_eq!(got.outcome, quantities([1.0, 2.0, 2.0, 1.0]));
}

fn model_of_normalised(tables: &str) -> Model {
    // What the sample becomes is not what its golden says.
    let loose = format!("{tables}{LABELS}");
    let dir = tempfile::tempdir().unwrap();
    let golden = made::goldens(&[("sample.json", "fp32", &[0.0; 4])]);
    let relu = onnx::graph(&[0, 4], &[("Relu", &["x"], &["y"], &[])], &[]);
    let files: [(&str, &[u8]); 3] = [
        ("model.onnx", &relu),
        ("sample.json", b"[1, 2, 1, 2]"),
        ("golden.toml", golden.as_bytes()),
    ];
    made::bundle(dir.path(), &manifest("regression", &loose, ""), &files);
    Model::load(&Bundle::open(dir.path()).unwrap(), None, &Tract).unwrap()
}

#[test]
fn each_fault_of_a_kind_is_told() {
    let named = format!("{LABELS}meaning = \"logits\"\nthreshold = 0.5\n");
    let of = "of = \"x\"\nerror = \"squared\"\nthreshold = 0.2\n";
    let cases: [(&str, &str, (&str, &str), &str); 21] = [
        (
            "multi-label",
            &named,
            ("threshold = 0.5", "set_from = 1.0\nthreshold = 0.5"),
            "0.01..=0.99",
        ),
        (
            "multi-label",
            &named,
            ("threshold = 0.5", "release = 0.6\nthreshold = 0.5"),
            "at most set_from",
        ),
        ("multi-label", &named, (", \"d\"", ""), "output[0].labels"),
        ("regression", LABELS, (", \"d\"", ", \"c\""), "twice"),
        ("regression", LABELS, ("labels", "mean = [1.0, 2.0]\nlabels"), "4 of them"),
        (
            "regression",
            LABELS,
            ("labels", "threshold = 0.5\nlabels"),
            "output[0].threshold: not a key",
        ),
        ("embedding", "", ("[[output]]", "[[output]]"), "output[0].normalise: missing"),
        ("reconstruction", of, ("of = \"x\"", "of = \"y\""), "the name of an [[input]] of 4"),
        ("reconstruction", of, ("squared", "cubed"), "\"squared\" or \"absolute\""),
        ("tensor", "labels = [\"a\"]", ("", ""), "output[0].labels: not a key"),
        ("tensor", "", ("[\"batch\", 4]", "[4, \"batch\"]"), "input[0].shape"),
        ("tensor", "", ("[\"batch\", 4]", "[\"batch\", 99999999]"), "16777216"),
        ("tensor", "", ("[\"batch\", 4]", "[1, 4]"), "as free in its batch as the inputs"),
        ("tensor", "", ("dtype = \"f32\"", "dtype = \"complex\""), "input[0].dtype"),
        (
            "tensor",
            "[[output]]\nname = \"z\"\ndtype = \"f32\"\nshape = [\"batch\", 9999999]\n",
            ("", ""),
            "at most 1048576 in all",
        ),
        (
            "tensor",
            "",
            ("[input.tensor]", "[input.tensor]\nstd = [1.0, 2.0, 3.0]"),
            "divides the 4",
        ),
        ("tensor", "", ("[input.tensor]", "[input.tensor]\nstep = 5"), "1..=4"),
        ("tensor", "", ("[input.tensor]", "[input.text]\n[input.tensor]"), "absent beside"),
        ("tensor", "", ("[input.tensor]", "[input.constant]\nvalue = 1"), "that a caller sends"),
        ("tensor", "", ("[input.tensor]", "[input.constant]\nvalue = [1, 2]"), "4 of them"),
        (
            "tensor",
            "[[state]]\ninput = \"x\"\noutput = \"s\"\ndtype = \"f32\"\nshape = [0]\n",
            ("", ""),
            "state[0].shape",
        ),
    ];
    for (kind, lines, (from, to), text) in cases {
        let tables = format!("{TABLES}{lines}");
        assert!(tables.contains(from), "{from}");
        let faults = open(kind, &tables.replacen(from, to, 1), "").map(|_| ()).unwrap_err();
        assert!(faults.contains(text), "{to:?} of {kind}: {faults}");
    }
    // Two inputs, a state and an output of one name.
    let twice = format!("{TABLES}{}", TABLES.split("[[output]]").next().unwrap());
    let faults = open("tensor", &twice, "").map(|_| ()).unwrap_err();
    assert!(faults.contains("input[1].name"), "{faults}");
}

/// The model of a graph that gives back what is not below 0, of these dimensions.
fn whole(
    kind: &str,
    tables: &str,
    shape: &[u64],
    sample: (&str, &[u8]),
    golden: &[f32],
) -> Result<Model, String> {
    let dir = tempfile::tempdir().unwrap();
    let golden = made::goldens(&[(sample.0, "fp32", golden)]);
    let relu = onnx::graph(shape, &[("Relu", &["x"], &["y"], &[])], &[]);
    let files = [("model.onnx", &relu[..]), sample, ("golden.toml", golden.as_bytes())];
    let manifest = manifest(kind, tables, "").replace("sample.json", sample.0);
    made::bundle(dir.path(), &manifest, &files);
    let bundle = Bundle::open(dir.path()).map_err(|error| error.to_string())?;
    Model::load(&bundle, None, &Tract).map_err(|error| format!("{error:?}"))
}

/// The tables of a graph whose only input is a grey picture.
fn pictured(width: usize, height: usize, table: &str) -> String {
    let shape = format!("dtype = \"f32\"\nshape = [1, 1, {height}, {width}]\n");
    format!(
        "[[input]]\nname = \"x\"\n{shape}[input.image]\nwidth = {width}\nheight = {height}\n\
         channels = \"gray\"\nresize = \"stretch\"\nfilter = \"nearest\"\nlayout = \"nchw\"\n\
         [[output]]\nname = \"y\"\n{shape}{table}"
    )
}

/// A grey picture whose pixels are 0 or the largest.
fn picture(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let pixels: Vec<u8> = pixels.iter().map(|x| x * 255).collect();
    pictures::png(width, height, image::ExtendedColorType::L8, &pixels)
}

const FOUND: &str = "[detection]\ndecoder = \"finished\"\nlabels = [\"cat\", \"dog\"]\n\
    outputs = [\"y\"]\nform = \"corners\"\nunit = \"fraction\"\nscore = 0.5\noverlap = 0.5\n\
    threshold = 0.6\n";

#[test]
fn a_picture_is_answered_in_its_own_pixels() {
    // Left, top, right, bottom, score and class, each a pixel.
    let sample = picture(6, 1, &[0, 0, 1, 1, 1, 1]);
    let golden = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let tables = pictured(6, 1, FOUND);
    let mut model =
        whole("detection", &tables, &[1, 1, 1, 6], ("sample.png", &sample), &golden).unwrap();
    let larger: Vec<u8> = [0, 0, 1, 1, 1, 1].iter().flat_map(|x| [*x; 10]).collect();
    let larger = picture(60, 1, &larger);
    for (case, body, size) in [("as it is", &sample, (6, 1)), ("larger", &larger, (60, 1))] {
        let got = model.infer(&Media::detect(body.clone(), None).unwrap()).unwrap();
        assert_eq!(got.outcome.confidence(), Some(1.0), "{case}");
        let Outcome::Things(things) = got.outcome else { panic!("{case}: no things") };
        assert_eq!((things.width, things.height), size, "{case}");
        let found = &things.found[0];
        assert_eq!((found.label.as_str(), things.found.len()), ("dog", 1), "{case}");
        let region = found.region;
        assert_eq!((region.left, region.top), (0.0, 0.0), "{case}");
        assert_eq!((region.right, region.bottom), (size.0 as f32, 1.0), "{case}");
    }
    let nothing = picture(6, 1, &[0; 6]);
    let got = model.infer(&Media::detect(nothing, None).unwrap()).unwrap();
    assert_eq!(got.outcome.confidence(), None, "nothing is nothing to be sure of");

    let table = "[segmentation]\ndecoder = \"threshold\"\nlabels = [\"ground\", \"sky\"]\n\
        activation = \"none\"\nset_from = 0.5\n";
    let sample = picture(2, 2, &[1, 1, 0, 1]);
    let golden = [1.0, 1.0, 0.0, 1.0];
    let tables = pictured(2, 2, table);
    let mut model =
        whole("segmentation", &tables, &[1, 1, 2, 2], ("sample.png", &sample), &golden).unwrap();
    let got = model.infer(&Media::detect(sample, None).unwrap()).unwrap();
    let Outcome::Pixels(pixels) = got.outcome else { panic!("no pixels") };
    let runs: Vec<_> = pixels.mask.runs().iter().map(|run| (run.class, run.length)).collect();
    assert_eq!(runs, [(Some(1), 2), (Some(0), 1), (Some(1), 1)]);
    assert_eq!((&*pixels.labels[1], pixels.mask.areas()), ("sky", &[1, 3][..]));
}

const STEPS: &str = "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 3, 2]\n\
    [input.tensor]\n[[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [1, 3, 2]\n[ctc]\n\
    symbols = [\"\", \"a\"]\nblank = 0\nmeaning = \"probabilities\"\nthreshold = 0.5\n";

#[test]
fn steps_are_read_as_text() {
    for tables in [STEPS.to_owned(), format!("{STEPS}beam = 4\n")] {
        let sample = b"[[[0, 1], [1, 0], [0, 1]]]";
        let golden = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        let mut model =
            whole("ctc", &tables, &[1, 3, 2], ("sample.json", sample), &golden).unwrap();
        let got = ask(&mut model, sample, None).unwrap();
        let Outcome::Text(text) = got.outcome else { panic!("no text") };
        assert_eq!((text.text.as_str(), text.confidence), ("aa", 1.0));
    }
}

#[test]
fn each_fault_of_what_is_made_of_whole_tensors_is_told() {
    let sample = picture(6, 1, &[0; 6]);
    let found = pictured(6, 1, FOUND);
    let grids = FOUND.replace("finished", "anchors").replace("corners", "yolov5");
    let cases = [
        ("detection", found.replace("[\"y\"]", "[\"z\"]"), "detection.outputs"),
        ("detection", found.replace("[\"y\"]", "[\"y\", \"y\"]"), "the name of one [[output]]"),
        ("detection", found.replace("\"dog\"", "\"cat\""), "\"cat\" twice"),
        ("detection", found.replace("finished", "guess"), "detection.decoder"),
        ("detection", found.replace("finished", "ssd"), "boxes and of that of scores"),
        ("detection", found.replace("score = 0.5", "score = 2"), "detection.score"),
        ("detection", found.replace("score = 0.5", "score = 0.5\ncolour = 1"), "detection.colour"),
        ("detection", found.replace("[detection]", "[segmentation]"), "a table [detection]"),
        ("detection", pictured(6, 1, &grids), "detection.order"),
        ("detection", STEPS.replace("[ctc]", "[detection]"), "one [[input]] with [input.image]"),
        ("segmentation", found.replace("[detection]", "[segmentation]"), "segmentation.decoder"),
        ("ctc", STEPS.replace("blank = 0", "blank = 2"), "0..=1"),
        ("ctc", STEPS.replace("threshold", "beam = 0\nthreshold"), "1..=1024"),
        ("ctc", STEPS.replace("[\"\", \"a\"]", "[\"\"]"), "2 to 65535"),
    ];
    for (kind, tables, text) in cases {
        let got = whole(kind, &tables, &[1, 1, 1, 6], ("sample.png", &sample), &[0.0; 6]);
        let faults = got.map(|_| ()).unwrap_err();
        assert!(faults.contains(text), "{kind} wants {text}: {faults}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_body_is_a_danger(
        begin in prop::sample::select(vec![
            &b""[..], b"{\"inputs\": {\"x\": [", b"[[", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', ",
            b"1,2,3\n", b"{\"inputs\": {\"x\": {\"b64\": \"",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        said in prop::sample::select(vec![
            None, Some("application/json"), Some("text/csv"), Some("application/octet-stream"),
        ]),
    ) {
        thread_local! {
            static MODEL: std::cell::RefCell<Model> =
                std::cell::RefCell::new(model("regression", &format!("{TABLES}{LABELS}")));
        }
        let body = [begin, &rest].concat();
        if let Ok(media) = Media::detect_for(body, said, Some(MediaKind::Tensor)) {
            // Whatever comes of it, the model answers the next one.
            MODEL.with_borrow_mut(|model| {
                drop(model.infer(&media));
                assert!(ask(model, b"[0, 0.5, 0.25, 1]", None).is_ok());
            });
        }
    }
}
