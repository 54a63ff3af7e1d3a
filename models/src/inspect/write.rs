//! A draft as the text of a `bundle.toml`, for a person to read and to finish.
//!
//! **Invariant:** the text is a valid manifest as soon as the sample and the files in it are there; what
//! a person must look at stands as a comment before the section that it is in.

use std::fmt::Write as _;

use super::guess::{Draft, DraftOutput, Kind, Note, Source};
use crate::bundle::Layout;
use crate::outputs::Meaning;

/// What the manifest says besides the draft.
#[derive(Debug, Clone)]
pub struct Texts {
    /// The bundle's name.
    pub name: String,
    /// Its task.
    pub task: String,
    /// One sentence about it.
    pub description: String,
    /// What made the file.
    pub trained_by: String,
    /// The day, `YYYY-MM-DD`.
    pub date: String,
    /// The ONNX file, relative to the bundle, and whether its activations are quantised.
    pub onnx: (String, bool),
    /// Largest difference of an output against the golden one.
    pub tolerance: f32,
    /// The sample, relative to the bundle, and its label.
    pub sample: Option<(String, Option<String>)>,
    /// Each file: path, bytes, SHA-256 in hexadecimal.
    pub files: Vec<(String, usize, String)>,
}

impl Texts {
    /// The name of the variant.
    pub fn variant(&self) -> &'static str {
        if self.onnx.1 { "int8" } else { "fp32" }
    }
}

/// The text.
pub fn manifest(draft: &Draft, texts: &Texts) -> String {
    let mut all = Lines::default();
    all.comment(
        "Written by `holdfast-agent models add` from the file alone. Look at each line that",
    );
    all.comment("has a comment: \"to write\" is not known to anyone but the model's maker.");
    all.line("format", "1");
    all.text("name", &texts.name);
    all.line("version", "\"0.1.0\"");
    all.text("task", &texts.task);
    all.notes(draft, |key| key == "kind");
    all.text("kind", draft.kind.name());
    all.text("description", &texts.description);
    all.comment("to write: the licence");
    all.line("licence", "\"unknown\"");

    all.section("[provenance]");
    all.comment("to write: what trained it, on which data under which licence, when");
    all.text("trained_by", &texts.trained_by);
    all.line("data", "[\"unknown\"]");
    all.line("seed", "0");
    all.text("date", &texts.date);

    for input in &draft.inputs {
        all.section("[[input]]");
        all.notes(draft, |key| is_of(key, "input", &input.tensor.name));
        let is_exact = matches!(input.source, Source::Constant(_));
        all.tensor(&input.tensor, is_exact);
        all.source(&input.source);
    }
    for (at, output) in draft.outputs.iter().enumerate() {
        all.section("[[output]]");
        all.notes(draft, |key| is_of(key, "output", &output.name));
        all.tensor(output, false);
        if at == 0 {
            all.kind(draft);
        }
    }
    if let Some(table) = &draft.table {
        all.section(&format!("[{}]", draft.kind.name()));
        all.notes(draft, |key| key == draft.kind.name() || key == "labels");
        for (key, value) in &table.lines {
            all.line(key, value);
        }
        if !draft.labels.is_empty() {
            all.line("labels", &list(&draft.labels));
        }
    }
    for (input, output, dtype, shape) in &draft.states {
        all.section("[[state]]");
        all.notes(draft, |key| key == "state");
        all.text("input", input);
        all.text("output", output);
        all.text("dtype", dtype.name());
        all.line("shape", &format!("{shape:?}"));
    }

    let (file, is_quantised) = &texts.onnx;
    all.section("[[variant]]");
    all.comment("to write: the accuracy on a test set, and how far outputs may be off for it");
    all.text("name", texts.variant());
    all.line("precision", if *is_quantised { "\"int8-qdq\"" } else { "\"fp32\"" });
    all.text("file", file);
    all.number("tolerance", texts.tolerance);
    all.line("accuracy", "0.0");

    match &texts.sample {
        Some((file, label)) => {
            all.section("[[sample]]");
            all.text("file", file);
            if let Some(label) = label {
                all.text("label", label);
            }
        }
        None => {
            all.section(
                "# to write: at least one [[sample]] with its file, and its golden outputs:",
            );
            all.comment("give `models add` a file with --sample");
        }
    }
    for (path, bytes, sha256) in &texts.files {
        all.section("[[file]]");
        all.text("path", path);
        all.line("bytes", &bytes.to_string());
        all.text("sha256", sha256);
    }
    all.0
}

fn is_of(key: &str, what: &str, name: &str) -> bool {
    let rest = key.strip_prefix(what).and_then(|rest| rest.strip_prefix(' '));
    rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with(':'))
}

/// The manifest under writing.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, key: &str, value: &str) {
        // Writing to a String cannot fail.
        writeln!(self.0, "{key} = {value}").ok();
    }

    fn text(&mut self, key: &str, text: &str) {
        self.line(key, &quoted(text));
    }

    fn number(&mut self, key: &str, number: f32) {
        self.line(key, &format!("{number:?}"));
    }

    fn section(&mut self, header: &str) {
        writeln!(self.0, "\n{header}").ok();
    }

    fn comment(&mut self, text: &str) {
        // A name from the file must not end the comment.
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(self.0, "# {line}").ok();
    }

    fn notes(&mut self, draft: &Draft, is_here: impl Fn(&str) -> bool) {
        for Note { key, is_missing, what } in draft.notes.iter().filter(|note| is_here(&note.key)) {
            let word = if *is_missing { "to write" } else { "guessed" };
            let key = key.split_once(": ").map_or(&**key, |(_, key)| key);
            self.comment(&format!("{word}: {key}: {what}"));
        }
    }

    fn tensor(&mut self, tensor: &DraftOutput, is_exact: bool) {
        self.text("name", &tensor.name);
        self.text("dtype", tensor.dtype.name());
        let dims: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let mut dims = dims.join(", ");
        if tensor.free_batch {
            dims = match dims.split_once(", ") {
                Some((_, rest)) => format!("\"batch\", {rest}"),
                None => "\"batch\"".to_owned(),
            };
        }
        self.line("shape", &format!("[{dims}]"));
        if let Some((scale, zero)) = tensor.scale.filter(|_| !is_exact) {
            self.number("scale", scale);
            self.line("zero_point", &zero.to_string());
        }
    }

    fn source(&mut self, source: &Source) {
        match source {
            Source::Image { width, height, is_gray, layout } => {
                self.section("[input.image]");
                self.line("width", &width.to_string());
                self.line("height", &height.to_string());
                self.line("channels", if *is_gray { "\"gray\"" } else { "\"rgb\"" });
                self.line("resize", "\"stretch\"");
                self.line("filter", "\"bilinear\"");
                let layout = match layout {
                    Layout::Nchw => "\"nchw\"",
                    Layout::Nhwc => "\"nhwc\"",
                };
                self.line("layout", layout);
                self.line("mean", "0.0");
                self.line("std", "1.0");
            }
            Source::Wave { sample_rate_hz, window } => {
                self.section("[input.wave]");
                self.line("sample_rate_hz", &sample_rate_hz.to_string());
                self.line("window_samples", &window.to_string());
                self.line("context_samples", "0");
            }
            Source::Numbers => self.section("[input.tensor]"),
            Source::Constant(value) => {
                self.section("[input.constant]");
                self.line("value", &value.to_string());
            }
        }
    }

    /// What the kind needs in the section of the first output.
    fn kind(&mut self, draft: &Draft) {
        if draft.table.is_none() {
            self.notes(draft, |key| key == "labels");
        }
        let labels = list(&draft.labels);
        let meaning = |meaning: Meaning| match meaning {
            Meaning::Logits => "\"logits\"",
            Meaning::Probabilities => "\"probabilities\"",
        };
        let threshold = "to write: from which confidence on an answer is good enough";
        match draft.kind {
            Kind::Classification(of) => {
                self.line("meaning", meaning(of));
                self.line("labels", &labels);
                self.line("temperature", "1.0");
                self.comment(threshold);
                self.line("threshold", "0.5");
            }
            Kind::MultiLabel(of) => {
                self.line("meaning", meaning(of));
                self.line("labels", &labels);
                self.line("set_from", "0.5");
                self.comment(threshold);
                self.line("threshold", "0.5");
            }
            Kind::Regression => {
                self.line("labels", &labels);
                self.comment("to write: mean and std, if the numbers were scaled in training");
            }
            Kind::Embedding => self.line("normalise", "\"l2\""),
            Kind::Reconstruction => {
                let size = |shape: &[usize]| shape.iter().product::<usize>();
                let wanted = draft.outputs.first().map(|output| size(&output.shape));
                let same = draft.inputs.iter().find(|i| Some(size(&i.tensor.shape)) == wanted);
                self.text("of", same.map_or("", |input| &*input.tensor.name));
                self.line("error", "\"squared\"");
                self.comment("to write: from which mean error on an input is unusual");
                self.line("threshold", "1.0");
            }
            Kind::Detection | Kind::Segmentation | Kind::Ctc | Kind::Tensor => {}
        }
    }
}

/// Texts as TOML.
fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
