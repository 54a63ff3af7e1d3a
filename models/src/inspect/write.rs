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
    all.head(draft, texts);
    all.tensors(draft);
    all.variant(draft, texts);
    all.sample(texts);
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

    /// What it is, whose, and from where.
    fn head(&mut self, draft: &Draft, texts: &Texts) {
        self.comment(
            "Written by `holdfast-agent models add` from the file alone. Look at each line that",
        );
        self.comment("has a comment: \"to write\" is not known to anyone but the model's maker.");
        self.line("format", "1");
        self.text("name", &texts.name);
        self.line("version", "\"0.1.0\"");
        self.text("task", &texts.task);
        self.notes(draft, |key| key == "kind");
        self.text("kind", draft.kind.name());
        self.text("description", &texts.description);
        self.notes(draft, |key| key == "licence");
        self.line("licence", "\"unknown\"");

        self.section("[provenance]");
        self.notes(draft, |key| key == "provenance");
        self.text("trained_by", &texts.trained_by);
        self.line("data", "[\"unknown\"]");
        self.line("seed", "0");
        self.text("date", &texts.date);
    }

    /// Inputs, outputs, the table of the kind, and states.
    fn tensors(&mut self, draft: &Draft) {
        for input in &draft.inputs {
            self.section("[[input]]");
            self.notes(draft, |key| is_of(key, "input", &input.tensor.name));
            let is_exact = matches!(input.source, Source::Constant(_));
            self.tensor(&input.tensor, is_exact);
            self.source(&input.source);
        }
        for (at, output) in draft.outputs.iter().enumerate() {
            self.section("[[output]]");
            self.notes(draft, |key| is_of(key, "output", &output.name));
            self.tensor(output, false);
            if at == 0 {
                self.kind(draft);
            }
        }
        if let Some(table) = &draft.table {
            self.section(&format!("[{}]", draft.kind.name()));
            self.notes(draft, |key| key == draft.kind.name() || key == "labels");
            for (key, value) in &table.lines {
                self.line(key, value);
            }
            if !draft.labels.is_empty() {
                self.line("labels", &list(&draft.labels));
            }
        }
        for (input, output, dtype, shape) in &draft.states {
            self.section("[[state]]");
            self.notes(draft, |key| key == "state");
            self.text("input", input);
            self.text("output", output);
            self.text("dtype", dtype.name());
            self.line("shape", &format!("{shape:?}"));
        }
    }

    fn variant(&mut self, draft: &Draft, texts: &Texts) {
        let (file, is_quantised) = &texts.onnx;
        self.section("[[variant]]");
        self.notes(draft, |key| key == "variant");
        self.text("name", texts.variant());
        self.line("precision", if *is_quantised { "\"int8-qdq\"" } else { "\"fp32\"" });
        self.text("file", file);
        self.number("tolerance", texts.tolerance);
        self.line("accuracy", "0.0");
    }

    fn sample(&mut self, texts: &Texts) {
        match &texts.sample {
            Some((file, label)) => {
                self.section("[[sample]]");
                self.text("file", file);
                if let Some(label) = label {
                    self.text("label", label);
                }
            }
            None => {
                let what =
                    "to write: at least one [[sample]] with its file, and its golden outputs:";
                self.section(&format!("# {what}"));
                self.comment(
                    "give `models add` a file with --sample, or write it here and its [[file]] below,",
                );
                self.comment("and have `holdfast-agent models golden` make them");
            }
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
        let noted = |all: &mut Self| all.notes(draft, |key| key == "threshold" || key == "scale");
        match draft.kind {
            Kind::Classification(of) => {
                self.line("meaning", meaning(of));
                self.line("labels", &labels);
                self.line("temperature", "1.0");
                noted(self);
                self.line("threshold", "0.5");
            }
            Kind::MultiLabel(of) => {
                self.line("meaning", meaning(of));
                self.line("labels", &labels);
                self.line("set_from", "0.5");
                noted(self);
                self.line("threshold", "0.5");
            }
            Kind::Regression => {
                self.line("labels", &labels);
                noted(self);
            }
            Kind::Embedding => self.line("normalise", "\"l2\""),
            Kind::Reconstruction => {
                let size = |shape: &[usize]| shape.iter().product::<usize>();
                let wanted = draft.outputs.first().map(|output| size(&output.shape));
                let same = draft.inputs.iter().find(|i| Some(size(&i.tensor.shape)) == wanted);
                self.text("of", same.map_or("", |input| &*input.tensor.name));
                self.line("error", "\"squared\"");
                noted(self);
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
