//! Bundles made for the tests, byte by byte: each gives back the numbers of its table at the places
//! that its input names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use holdfast_models::tensor::Elements;
use holdfast_models::{Bundle, Tensor};
use sha2::{Digest, Sha256};

use crate::onnx;

/// Entries of the table; another place is an error of whoever asks for it.
pub(crate) const PLACES: usize = 300;
/// Numbers of one row.
pub(crate) const ROW: usize = 16;

/// What a bundle is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) task: &'static str,
    /// The table's step, by which an answer tells which bundle gave it.
    pub(crate) step: f32,
    /// More lines of the manifest.
    pub(crate) more: &'static str,
}

impl Made {
    /// A bundle of the task `look-up`.
    pub(crate) fn of(name: &'static str, version: &'static str, step: f32) -> Self {
        Self { name, version, task: "look-up", step, more: "" }
    }

    /// Writes it into a folder of its own in `dir`.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        self.write_graph(dir, &graph(self.step))
    }

    /// Writes it with any bytes as its graph.
    pub(crate) fn write_graph(&self, dir: &Path, onnx: &[u8]) -> PathBuf {
        let folder = dir.join(format!("{}-{}", self.name, self.version));
        let Self { name, version, task, more, .. } = self;
        let mut text = format!(
            "format = 1\nname = \"{name}\"\nversion = \"{version}\"\ntask = \"{task}\"\n{MANIFEST}{more}"
        );
        let golden = format!(
            "[[golden]]\nsample = \"a.png\"\nvariant = \"fp32\"\noutput = {:?}\n",
            [0.0f32; ROW]
        );
        let mut picture = std::io::Cursor::new(Vec::new());
        let pixels = image::GrayImage::from_fn(4, 4, |x, y| image::Luma([(x * 40 + y) as u8]));
        pixels.write_to(&mut picture, image::ImageFormat::Png).unwrap();
        let files: [(&str, &[u8]); 3] = [
            ("model.onnx", onnx),
            ("golden.toml", golden.as_bytes()),
            ("a.png", picture.get_ref()),
        ];
        std::fs::create_dir_all(&folder).unwrap();
        for (path, bytes) in files {
            std::fs::write(folder.join(path), bytes).unwrap();
            let (hash, bytes) = (hex::encode(Sha256::digest(bytes)), bytes.len());
            write!(text, "\n[[file]]\npath = \"{path}\"\nbytes = {bytes}\nsha256 = \"{hash}\"\n")
                .unwrap();
        }
        std::fs::write(folder.join("bundle.toml"), text).unwrap();
        Bundle::open(&folder).expect("what is made for a test is right");
        folder
    }

    /// What it gives for a row of places.
    pub(crate) fn wanted(&self, row: &[f32]) -> Vec<f32> {
        row.iter().map(|place| place * self.step).collect()
    }
}

/// Places that are there, others for each `seed`.
pub(crate) fn places(seed: usize) -> Vec<f32> {
    (0..ROW).map(|n| u16::try_from((seed * 7 + n * 3) % PLACES).unwrap()).map(f32::from).collect()
}

/// Rows as an input.
pub(crate) fn input(rows: &[Vec<f32>]) -> (String, Tensor) {
    let elements = Elements::F32(rows.concat());
    ("x".to_owned(), Tensor::new(vec![rows.len(), 1, 4, 4], elements).unwrap())
}

/// The pixels of a picture are places from 0 to 255; what stands for them at the tolerance does not
/// matter here.
const MANIFEST: &str = r#"kind = "classification"
description = "Looks numbers up in a table."
licence = "MIT"
[provenance]
trained_by = "no one"
data = ["none"]
seed = 1
date = "2026-11-21"
[[input]]
name = "x"
dtype = "f32"
shape = ["batch", 1, 4, 4]
[input.image]
width = 4
height = 4
channels = "gray"
resize = "stretch"
filter = "nearest"
layout = "nchw"
std = 0.0039215686
[[output]]
name = "y"
dtype = "f32"
shape = ["batch", 1, 4, 4]
meaning = "logits"
labels = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]
threshold = 0.0
[[variant]]
name = "fp32"
precision = "fp32"
file = "model.onnx"
tolerance = 100.0
accuracy = 1.0
[[sample]]
file = "a.png"
label = "a"
"#;

/// y = table[int64(x)], for any batch.
fn graph(step: f32) -> Vec<u8> {
    let numbers = (0..u16::try_from(PLACES).unwrap()).map(|place| f32::from(place) * step);
    let numbers: Vec<f32> = numbers.collect();
    let nodes: [onnx::Node<'_>; 2] = [
        // To int64.
        ("Cast", &["x"], &["places"], &[("to", 7)]),
        ("Gather", &["table", "places"], &["y"], &[]),
    ];
    onnx::graph(&[0, 1, 4, 4], &nodes, &[("table", &[PLACES as u64], &numbers)])
}
