//! The readers, each with files that it takes.
//!
//! **Invariant:** a target reads bytes as the program does that they are for, and says whether they were
//! taken; it changes nothing outside of a folder of its own.

use std::io::Cursor;
use std::path::Path;

use holdfast_models::audio::AudioPipeline;
use holdfast_models::bundle::{GOLDEN_FILE, Golden, MANIFEST, Unproven, relisted};
use holdfast_models::image::ImagePipeline;
use holdfast_models::inspect::{Draft, Hints, inspect};
use holdfast_models::runtime::tract::is_prepared;
use holdfast_models::{Bundle, Media, MediaType, Model, Tract};
use hound::{SampleFormat, WavSpec, WavWriter};
use image::{ImageFormat, RgbImage};
use sha2::{Digest, Sha256};

use super::graphs::{self, message};
use crate::bundle::Made;

/// Reads bytes, and says whether they were taken.
pub type Reader = Box<dyn FnMut(&[u8]) -> bool>;

/// One reader.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// How often it is thrown at in the ordinary tests.
    pub executions: u64,
    /// Files that it takes.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Files that it refuses, and that are changed as well.
    pub refused: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Begins: what is given reads bytes, and says whether they were taken.
    pub begin: fn() -> Reader,
    /// Memory that it may ask for at once, whatever it is given, and for each byte of that.
    pub most: usize,
    /// See `most`.
    pub share: usize,
}

/// A picture may have 25 million pixels of four bytes, and be decoded from one such to another.
const PICTURE: usize = 260 << 20;
/// A recording may have 60 s of 192,000 samples of 32 channels.
const RECORDING: usize = 64 << 20;
const MESSAGE: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "bundle",
        executions: 4_000,
        seeds: manifests,
        refused: Vec::new,
        words: &[
            "[[input]]",
            "[[output]]",
            "[[state]]",
            "[[file]]",
            "[batching]",
            "[windows]",
            "shape = [",
            "\"batch\"",
            "kind = \"detection\"",
            "[detection]",
            "[segmentation]",
            "[ctc]",
            "dtype = \"i8\"",
            "[input.audio]",
            "[input.image]",
            "[input.tensor]",
            "[input.text]",
            "[input.wave]",
            "[input.constant]",
            "mean = [",
            "labels = [",
            "others",
            "../",
            "= ",
            "\n",
            "\"",
        ],
        begin: bundle,
        most: 8 << 20,
        share: 256,
    },
    Target {
        name: "onnx",
        executions: 20_000,
        seeds: graphs::whole,
        refused: graphs::refused,
        words: &["Softmax", "Conv", "Loop", "If", "Constant", "com.microsoft", "external_data"],
        begin: || {
            Box::new(|bytes| {
                inspect(bytes).is_ok_and(|file| {
                    // A shape that is left open is no fault of the file.
                    drop(Draft::of(&file, &Hints::default()));
                    true
                })
            })
        },
        most: 8 << 20,
        share: 256,
    },
    Target {
        name: "tract",
        executions: 20_000,
        seeds: graphs::whole,
        refused: graphs::refused,
        words: &[
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "Gather",
            "Slice",
            "ReduceProd",
            "ConstantOfShape",
            "QuantizeLinear",
            "DequantizeLinear",
            "Softmax",
            "axes",
        ],
        begin: || Box::new(is_prepared),
        most: 8 << 20,
        share: 256,
    },
    Target {
        name: "wav",
        executions: 20_000,
        seeds: recordings,
        refused: Vec::new,
        words: &["RIFF", "WAVE", "fmt ", "data", "LIST", "fact"],
        begin: || Box::new(|bytes| AudioPipeline::decode(bytes).is_ok()),
        most: RECORDING,
        share: 64,
    },
    Target {
        name: "image",
        executions: 4_000,
        seeds: pictures,
        refused: Vec::new,
        words: &[
            "IHDR", "IDAT", "IEND", "PLTE", "tRNS", "eXIf", "VP8 ", "VP8L", "VP8X", "ALPH", "EXIF",
            "Exif\0\0",
        ],
        begin: || {
            Box::new(|bytes| {
                let (media, bytes) = match bytes.split_first() {
                    Some((0, rest)) => (MediaType::Jpeg, rest),
                    Some((1, rest)) => (MediaType::Png, rest),
                    Some((_, rest)) => (MediaType::Webp, rest),
                    None => return false,
                };
                ImagePipeline::decode(bytes, media).is_ok()
            })
        },
        most: PICTURE,
        share: 1024,
    },
    Target {
        name: "numbers",
        executions: 20_000,
        seeds: bodies,
        refused: Vec::new,
        words: &[
            "{\"inputs\":",
            "\"x\":",
            "[",
            "]",
            "{\"b64\":",
            "descr",
            "'<f4'",
            "fortran_order",
            "shape",
            ",",
            "\n",
            "null",
            "\\u0000",
        ],
        begin: numbers,
        most: 8 << 20,
        share: 256,
    },
    Target {
        name: "v2-rest",
        executions: 40_000,
        seeds: rest,
        refused: Vec::new,
        words: &[
            "\"inputs\":[",
            "\"outputs\":[",
            "\"parameters\":{",
            "\"shape\":[",
            "\"datatype\":\"BYTES\"",
            "\"data\":[",
            "\"binary_data_size\":",
            "\"binary_data\":true",
            "\"classification\":",
            "\"priority\":4",
            "\"timeout\":1000",
            "[",
            "{",
            "\\ud800",
            "FP16",
            "-1",
        ],
        begin: || {
            Box::new(|bytes| match bytes.split_first_chunk::<2>() {
                // The length of the JSON stands before it, as the header says it; 0 for all.
                Some((length, body)) => {
                    let length = usize::from(u16::from_le_bytes(*length));
                    holdfast_agent::oip::is_request(body, (length > 0).then_some(length))
                }
                None => false,
            })
        },
        most: MESSAGE,
        share: 256,
    },
    Target {
        name: "v2-grpc",
        executions: 40_000,
        seeds: grpc,
        refused: Vec::new,
        words: &["FP32", "BYTES", "BOOL", "INT64", "FP16"],
        begin: || Box::new(holdfast_agent::oip::is_message),
        most: MESSAGE,
        share: 256,
    },
];

/// What stands between a manifest and its goldens.
const BETWEEN: &[u8] = b"\n#goldens\n";
/// The files that the manifests list beside the goldens.
const FILES: [(&str, &[u8]); 2] = [("model.onnx", b"any bytes"), ("sample", b"any bytes too")];

const HEAD: &str = r#"format = 1
name = "small"
version = "1.2.3"
task = "look"
description = "For tests."
licence = "MIT"
[provenance]
trained_by = "no one"
data = ["none"]
seed = 1
date = "2026-11-20"
[[variant]]
name = "fp32"
precision = "fp32"
file = "model.onnx"
tolerance = 0.001
accuracy = 1.0
[[sample]]
file = "sample"
"#;

/// Kinds of bundles: what stands before the rest of the manifest, its tables, and the values of its
/// first output.
const KINDS: [(&str, &str, usize); 5] = [
    (
        "classification",
        "label = \"b\"\n[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 3, 4, 4]\n[input.image]\n\
         width = 4\nheight = 4\nchannels = \"rgb\"\nresize = \"crop\"\nfilter = \"bilinear\"\n\
         layout = \"nchw\"\nmean = [0.1, 0.2, 0.3]\nstd = [1.0, 2.0, 3.0]\n[[output]]\nname = \"y\"\n\
         dtype = \"f32\"\nshape = [1, 2]\nmeaning = \"logits\"\nlabels = [\"a\", \"b\"]\nthreshold = 0.5\n",
        2,
    ),
    (
        "regression",
        "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 49, 10, 1]\n[input.audio]\n\
         sample_rate_hz = 16000\nclip_samples = 16000\nfit = \"start\"\nnormalise = \"max\"\n\
         frame_samples = 480\nstep_samples = 320\nwindow = \"hann\"\nfft = 512\n\
         spectrum = \"magnitude\"\nmel_bands = 40\nmel_low_hz = 20.0\nmel_high_hz = 4000.0\n\
         mel_scale = \"htk\"\nlog_floor = 1e-6\nfeatures = \"mfcc\"\nmfcc = 10\n[[output]]\n\
         name = \"y\"\ndtype = \"f32\"\nshape = [1, 1]\nlabels = [\"volts\"]\n",
        1,
    ),
    (
        "segmentation",
        "[[input]]\nname = \"x\"\ndtype = \"u8\"\nshape = [1, 4, 4, 1]\nscale = 0.01\nzero_point = 3\n\
         [input.image]\nwidth = 4\nheight = 4\nchannels = \"gray\"\nresize = \"stretch\"\n\
         filter = \"nearest\"\nlayout = \"nhwc\"\n[[output]]\nname = \"y\"\ndtype = \"f32\"\n\
         shape = [1, 2, 4, 4]\n[segmentation]\ndecoder = \"scores\"\nlayout = \"nchw\"\n\
         labels = [\"none\", \"some\"]\n",
        32,
    ),
    (
        "ctc",
        "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 4010]\n[input.wave]\n\
         sample_rate_hz = 16000\nwindow_samples = 4000\ncontext_samples = 10\nstep_samples = 2000\n\
         [[state]]\ninput = \"h\"\noutput = \"hn\"\ndtype = \"f32\"\nshape = [1, 8]\n[[output]]\n\
         name = \"y\"\ndtype = \"f32\"\nshape = [1, 2, 3]\n[ctc]\nsymbols = [\"\", \"a\", \"b\"]\n\
         blank = 0\nmeaning = \"logits\"\nbeam = 4\n",
        6,
    ),
    (
        "embedding",
        "[batching]\nmax_size = 8\n[[input]]\nname = \"x\"\ndtype = \"f32\"\n\
         shape = [\"batch\", 64]\n[input.text]\nfeatures = \"hashed-words\"\nhash = \"fnv1a-32\"\n\
         ngrams = 2\nnormalise = \"l2\"\n[[output]]\nname = \"y\"\ndtype = \"f32\"\n\
         shape = [\"batch\", 3]\nnormalise = \"l2\"\n",
        3,
    ),
];

fn manifests() -> Vec<Vec<u8>> {
    let whole = |&(kind, tables, values): &(&str, &str, usize)| {
        let files: String = FILES
            .iter()
            .map(|(path, bytes)| {
                let hash = hex::encode(Sha256::digest(bytes));
                let size = bytes.len();
                format!("[[file]]\npath = \"{path}\"\nbytes = {size}\nsha256 = \"{hash}\"\n")
            })
            .collect();
        let golden = Golden {
            sample: "sample".to_owned(),
            variant: "fp32".to_owned(),
            output: vec![0.5; values],
            others: std::collections::BTreeMap::new(),
        };
        let manifest = format!("kind = \"{kind}\"\n{HEAD}{tables}{files}");
        [manifest.as_bytes(), BETWEEN, Golden::text(&[golden]).as_bytes()].concat()
    };
    KINDS.iter().map(whole).collect()
}

fn bundle() -> Reader {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |dir: &Path, name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).expect("the folder can be written");
    };
    for (name, bytes) in FILES {
        write(dir.path(), name, bytes);
    }
    Box::new(move |bytes| {
        let between = bytes.windows(BETWEEN.len()).position(|part| part == BETWEEN);
        let (manifest, golden) = match between {
            Some(at) => (&bytes[..at], &bytes[at + BETWEEN.len()..]),
            None => (bytes, &[][..]),
        };
        // Its hash is right, so that what is in it is read.
        let listed = std::str::from_utf8(manifest).ok();
        let listed = listed.and_then(|manifest| relisted(manifest, GOLDEN_FILE, golden));
        let manifest = listed.as_deref().map_or(manifest, str::as_bytes);
        write(dir.path(), MANIFEST, manifest);
        write(dir.path(), GOLDEN_FILE, golden);
        let is_taken = match Bundle::open(dir.path()) {
            Ok(_) => true,
            Err(error) => error.to_string().is_empty(),
        };
        drop(Unproven::open(dir.path()));
        is_taken
    })
}

fn recordings() -> Vec<Vec<u8>> {
    let specs = [(16_000, 1, 16, SampleFormat::Int), (8_000, 2, 8, SampleFormat::Int), {
        (48_000, 1, 32, SampleFormat::Float)
    }];
    let whole = |&(sample_rate, channels, bits_per_sample, sample_format)| {
        let spec = WavSpec { channels, sample_rate, bits_per_sample, sample_format };
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec).expect("a header");
        for sample in 0..400i32 {
            let written = match sample_format {
                SampleFormat::Int => writer.write_sample(sample % 100),
                SampleFormat::Float => writer.write_sample(sample as f32 / 400.0),
            };
            written.expect("a sample");
        }
        writer.finalize().expect("an end");
        file.into_inner()
    };
    specs.iter().map(whole).collect()
}

fn pictures() -> Vec<Vec<u8>> {
    let level = |at: u32| u8::try_from(at * 20).unwrap_or(u8::MAX);
    let picture = RgbImage::from_fn(12, 9, |x, y| image::Rgb([level(x), level(y), 128]));
    let whole = |(mark, format): (u8, ImageFormat)| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("a picture");
        [&[mark][..], bytes.get_ref()].concat()
    };
    [(0, ImageFormat::Jpeg), (1, ImageFormat::Png), (2, ImageFormat::WebP)].map(whole).into()
}

/// A bundle that gives back 4 x 4 numbers, and what reads numbers for it.
fn numbers() -> Reader {
    let dir = tempfile::tempdir().expect("a folder");
    let graph = graphs::tiny();
    let made = Made {
        onnx: &graph,
        kind: "tensor",
        tables: "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 4]\n[input.tensor]\n[[output]]\n\
                 name = \"y\"\ndtype = \"f32\"\nshape = [1, 4]\n",
        label: "",
        sample: ("sample.json", b"[1, 2, 3, 4]"),
        golden: &[1.0, 2.0, 3.0, 4.0],
        tolerance: 0.0,
    };
    made.write(dir.path()).expect("the folder can be written");
    let bundle = Bundle::open(dir.path()).expect("what is made here is whole");
    let mut model = Model::load(&bundle, None, &Tract).expect("it gives its numbers back");
    Box::new(move |bytes| {
        let types =
            ["application/json", "text/csv", "application/x-npy", "application/octet-stream"];
        let Some((kind, body)) = bytes.split_first() else { return false };
        let said = types[usize::from(*kind) % types.len()];
        let media = Media::detect_for(body.to_vec(), Some(said), Some(bundle.expects()));
        media.is_ok_and(|media| model.infer(&media).is_ok())
    })
}

fn bodies() -> Vec<Vec<u8>> {
    let raw: Vec<u8> = [1.0f32, -2.0, 3.5, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }\n";
    let length = u16::try_from(header.len()).expect("it is short").to_le_bytes();
    let npy = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &raw].concat();
    [
        (0, b"{\"inputs\": {\"x\": [[1, 2.5, -3e2, 4]]}}".to_vec()),
        (0, b"[1, 2, 3, 4]".to_vec()),
        (1, b"a,b,c,d\n1,2,3,4\n".to_vec()),
        (2, npy),
        (3, raw),
    ]
    .map(|(kind, body)| [&[kind][..], &body].concat())
    .into()
}

fn rest() -> Vec<Vec<u8>> {
    let json = br#"{"id":"7","inputs":[{"name":"x",
        "datatype":"FP32","shape":[2,2],"data":[[1,2.5],[-3e2,4]]},{"name":"t","datatype":"BYTES",
        "shape":[2],"data":["a\u00e9","b"]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let binary = br#"{"inputs":[{"name":"x","datatype":"INT16","shape":[3],"parameters":{"binary_data_size":6}},
        {"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}"#;
    let length = u16::try_from(binary.len()).expect("it is short").to_le_bytes();
    let tail = [1, 0, 2, 0, 3, 0, 2, 0, 0, 0, b'h', b'i'];
    vec![[&[0, 0], &json[..]].concat(), [&length, &binary[..], &tail].concat()]
}

fn grpc() -> Vec<Vec<u8>> {
    let raw: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let input = message(&[(1, b"x"), (2, b"FP32"), (3, &[1, 2])]);
    let texts = message(&[(8, b"one"), (8, b"two")]);
    let typed = message(&[(1, b"t"), (2, b"BYTES"), (3, &[2]), (5, &texts)]);
    let output = message(&[(1, b"y")]);
    vec![
        message(&[(1, b"m"), (2, b"1"), (3, b"7"), (5, &input), (6, &output), (7, &raw)]),
        message(&[(1, b"m"), (5, &typed)]),
    ]
}
