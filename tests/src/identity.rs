//! Bundles whose graph gives back what it gets, of tensors of any type.
//!
//! **Invariant:** what is written is a whole bundle: the ONNX file (the numbers of its fields are those
//! of `onnx.proto`), a sample, its golden output, and their hashes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// A tensor that goes in under one name and comes out under another.
#[derive(Debug, Clone, Copy)]
pub struct Through {
    /// The input's name.
    pub input: &'static str,
    /// The output's name.
    pub output: &'static str,
    /// The type of the elements, as `bundle.toml` has it.
    pub dtype: &'static str,
    /// The dimensions behind the batch, which is free.
    pub size: usize,
}

/// The types, and their numbers in ONNX.
const TYPES: [(&str, u64); 13] = [
    ("f32", 1),
    ("u8", 2),
    ("i8", 3),
    ("u16", 4),
    ("i16", 5),
    ("i32", 6),
    ("i64", 7),
    ("string", 8),
    ("bool", 9),
    ("f16", 10),
    ("f64", 11),
    ("u32", 12),
    ("u64", 13),
];

/// Writes a bundle into a folder of its name under `dir`, which is returned.
///
/// # Errors
/// A type is not known, or the folder cannot be written.
pub fn bundle(dir: &Path, name: &str, tensors: &[Through]) -> anyhow::Result<PathBuf> {
    let folder = dir.join(name);
    fs::create_dir_all(&folder)?;
    let mut manifest = format!(
        "format = 1\nname = \"{name}\"\nversion = \"1.0.0\"\ntask = \"{name}\"\nkind = \"tensor\"\n\
         description = \"Gives back what it gets.\"\nlicence = \"MIT OR Apache-2.0\"\n\n\
         [provenance]\ntrained_by = \"nobody\"\ndata = [\"none\"]\nseed = 0\ndate = \"2026-01-01\"\n",
    );
    for (table, is_input) in [("input", true), ("output", false)] {
        for tensor in tensors {
            let Through { dtype, size, .. } = tensor;
            let name = if is_input { tensor.input } else { tensor.output };
            write!(
                manifest,
                "\n[[{table}]]\nname = \"{name}\"\ndtype = \"{dtype}\"\nshape = [\"batch\", {size}]\n"
            )?;
            if is_input {
                manifest.push_str("[input.tensor]\n");
            }
        }
    }
    manifest.push_str(
        "\n[[variant]]\nname = \"plain\"\nprecision = \"fp32\"\nfile = \"model.onnx\"\n\
         tolerance = 0.0\naccuracy = 1.0\n\n[[sample]]\nfile = \"sample.json\"\n",
    );
    let ones = |size: usize| vec!["1"; size].join(", ");
    let inputs: Vec<String> =
        tensors.iter().map(|t| format!("\"{}\": [{}]", t.input, ones(t.size))).collect();
    let sample = format!("{{\"inputs\": {{{}}}}}", inputs.join(", "));
    let (first, others) = tensors.split_first().context("no tensors")?;
    let mut golden = format!(
        "[[golden]]\nsample = \"sample.json\"\nvariant = \"plain\"\noutput = [{}]\n",
        ones(first.size)
    );
    for tensor in others {
        writeln!(golden, "others.{} = [{}]", tensor.output, ones(tensor.size))?;
    }
    let onnx = graph(tensors)?;
    let files: [(&str, &[u8]); 3] = [
        ("model.onnx", &onnx),
        ("sample.json", sample.as_bytes()),
        ("golden.toml", golden.as_bytes()),
    ];
    for (path, bytes) in files {
        fs::write(folder.join(path), bytes)?;
        let (length, hash) = (bytes.len(), hex::encode(Sha256::digest(bytes)));
        write!(manifest, "\n[[file]]\npath = \"{path}\"\nbytes = {length}\nsha256 = \"{hash}\"\n")?;
    }
    fs::write(folder.join("bundle.toml"), manifest)?;
    Ok(folder)
}

/// A graph of one Identity for each tensor.
fn graph(tensors: &[Through]) -> anyhow::Result<Vec<u8>> {
    let mut graph = Vec::new();
    for tensor in tensors {
        let mut node = Vec::new();
        field(&mut node, 1, tensor.input.as_bytes());
        field(&mut node, 2, tensor.output.as_bytes());
        field(&mut node, 4, b"Identity");
        field(&mut graph, 1, &node);
    }
    field(&mut graph, 2, b"identity");
    for tensor in tensors {
        field(&mut graph, 11, &value(tensor.input, tensor)?);
    }
    for tensor in tensors {
        field(&mut graph, 12, &value(tensor.output, tensor)?);
    }
    let mut opset = Vec::new();
    number(&mut opset, 2, 17);
    let mut model = Vec::new();
    number(&mut model, 1, 8);
    field(&mut model, 7, &graph);
    field(&mut model, 8, &opset);
    Ok(model)
}

fn value(name: &str, tensor: &Through) -> anyhow::Result<Vec<u8>> {
    let known = TYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype);
    let (_, element) = known.with_context(|| format!("{} is no type", tensor.dtype))?;
    let (mut batch, mut size, mut shape) = (Vec::new(), Vec::new(), Vec::new());
    field(&mut batch, 2, b"N");
    number(&mut size, 1, u64::try_from(tensor.size)?);
    field(&mut shape, 1, &batch);
    field(&mut shape, 1, &size);
    let (mut kind, mut of, mut info) = (Vec::new(), Vec::new(), Vec::new());
    number(&mut kind, 1, *element);
    field(&mut kind, 2, &shape);
    field(&mut of, 1, &kind);
    field(&mut info, 1, name.as_bytes());
    field(&mut info, 2, &of);
    Ok(info)
}

fn number(out: &mut Vec<u8>, tag: u64, value: u64) {
    varint(out, tag << 3);
    varint(out, value);
}

fn field(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    varint(out, (tag << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}
