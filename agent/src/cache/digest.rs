//! Owns what makes two inquiries the same one.
//!
//! Everything counts that can change an answer: who asks, the class, the model's name, and what is asked
//! with all its parameters. How long somebody waits, how urgent it is, its key and its id do not.
//!
//! The end user (`user`, `safety_identifier`) counts, although no answer is another one for it: a provider
//! tells its limits, and its search for abuse, apart by it, and nobody is to be answered by a question that
//! was asked for somebody else. A `prompt_cache_key` and a `prediction` change the time and the price of a
//! send alone, and do not count.
//!
//! **Invariant:** no two different inquiries have the same bytes before they are hashed: every field has
//! its length in front of it.

use holdfast_chat::served::transcriptions::{Chunking, Vad, Wanted};
use holdfast_chat::{Conversation, Hints, Inputs, Output, Part, Said, ToolResult, Turn};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::destination::Destination;
use crate::envelope::bare_body_of;
use crate::inquiry::{Inquiry, Recording, Terms, Texts};

/// From this size on, in bytes, what is asked takes long to hash.
const LARGE: usize = 256 * 1024;

/// Tells an inquiry from every other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(pub(super) [u8; 32]);

/// Bytes that are hashed, field by field.
pub(crate) struct Fields(Sha256);

/// What can be told from everything else that can be asked.
pub(crate) trait Distinct {
    /// Its kind.
    const KIND: &'static str;

    /// All that is in it.
    fn fields(&self, fields: &mut Fields);

    /// How many bytes that is, about.
    fn size(&self) -> usize;

    /// Whether it is so much that it is neither hashed nor written out on the reactor.
    fn is_large(&self) -> bool {
        self.size() >= LARGE
    }
}

impl Fields {
    fn begin(version: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.add(version.as_bytes());
        fields
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(bytes);
    }

    fn add_if_any(&mut self, bytes: Option<&[u8]>) {
        self.0.update([u8::from(bytes.is_some())]);
        bytes.into_iter().for_each(|bytes| self.add(bytes));
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Digest {
    /// That of `inquiry`, which `caller` asks of `model`. Takes long where much is asked.
    pub(crate) fn of<M: Distinct>(caller: &str, model: &str, inquiry: &Inquiry<M>) -> Self {
        let mut fields = Fields::begin("holdfast inquiry 1");
        for part in [M::KIND, caller, model, inquiry.terms.class.as_str()] {
            fields.add(part.as_bytes());
        }
        inquiry.matter.fields(&mut fields);
        Self(fields.end())
    }

    /// Tells a send from every other one: one that may cost more, is more urgent, or came another way is
    /// not shared.
    pub(crate) fn send(&self, terms: &Terms) -> [u8; 32] {
        let mut fields = Fields::begin("holdfast send 1");
        fields.add(&self.0);
        let cost = terms.cost_limit_micros.map(u64::to_le_bytes);
        fields.add_if_any(cost.as_ref().map(<[u8; 8]>::as_slice));
        fields.add(&[terms.priority.get(), terms.hops]);
        fields.end()
    }
}

/// Tells how a destination answers: one that became another under its old name has not answered before.
pub(crate) fn way_of(destination: &Destination) -> [u8; 32] {
    let mut fields = Fields::begin("holdfast way 1");
    let protocol = format!("{:?}", destination.protocol);
    for part in [&destination.name, destination.zone.as_str(), &destination.url, &protocol] {
        fields.add(part.as_bytes());
    }
    fields.end()
}

impl Distinct for Conversation {
    const KIND: &'static str = "conversation";

    fn fields(&self, fields: &mut Fields) {
        // As it is stored: every field in its order, each with its length.
        fields.add(&bare_body_of(self));
        let Hints { user, safety_identifier, prompt_cache_key: _, prediction: _ } = &self.hints;
        fields.add_if_any(user.as_deref().map(str::as_bytes));
        fields.add_if_any(safety_identifier.as_deref().map(str::as_bytes));
    }

    fn size(&self) -> usize {
        let turns = self.turns.iter().map(|turn| match turn {
            Turn::User(parts) => parts.iter().map(bytes_of).sum(),
            Turn::Model(said) => said.iter().map(bytes_said).sum(),
            Turn::Results(results) => results.iter().map(bytes_returned).sum(),
        });
        let tools = self
            .tools
            .iter()
            .map(|tool| tool.name.len() + tool.description.len() + bytes_written(&tool.parameters));
        let form = match &self.output {
            Output::Text => 0,
            Output::Json { name, schema } => name.len() + bytes_written(schema),
        };
        let stops = self.stop.iter().map(String::len);
        let system = bytes_if_any(&self.system);
        let Hints { user, safety_identifier, prompt_cache_key, prediction } = &self.hints;
        let hints = [user, safety_identifier, prompt_cache_key, prediction].map(bytes_if_any);
        let rest = form + system + hints.iter().sum::<usize>();
        turns.chain(tools).chain(stops).sum::<usize>() + rest
    }
}

fn bytes_of(part: &Part) -> usize {
    match part {
        Part::Speaker(text) | Part::Text(text) => text.len(),
        Part::Image(_, bytes, _) | Part::Audio(_, bytes) => bytes.len(),
    }
}

fn bytes_said(said: &Said) -> usize {
    match said {
        Said::Text(text) | Said::Redacted(text) => text.len(),
        Said::Reasoning { text, signature } => text.len() + bytes_if_any(signature),
        Said::Call(call) => {
            let named = call.id.len() + call.name.len();
            named + bytes_written(&call.arguments) + bytes_if_any(&call.signature)
        }
    }
}

fn bytes_returned(result: &ToolResult) -> usize {
    result.id.len() + result.name.len() + result.content.len()
}

fn bytes_if_any(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// Of JSON, about.
fn bytes_written(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(values) => {
            2 + values.iter().map(|value| bytes_written(value) + 1).sum::<usize>()
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| name.len() + 4 + bytes_written(value));
            2 + fields.sum::<usize>()
        }
    }
}

impl Distinct for Texts {
    const KIND: &'static str = "texts";

    fn fields(&self, fields: &mut Fields) {
        let Self { inputs, dimensions, user } = self;
        let dimensions = dimensions.map(u32::to_le_bytes);
        fields.add_if_any(dimensions.as_ref().map(<[u8; 4]>::as_slice));
        fields.add_if_any(user.as_deref().map(str::as_bytes));
        match inputs {
            Inputs::Texts(texts) => {
                fields.add(b"texts");
                texts.iter().for_each(|text| fields.add(text.as_bytes()));
            }
            Inputs::Tokens(tokens) => {
                fields.add(b"tokens");
                for list in tokens {
                    let bytes: Vec<u8> =
                        list.iter().flat_map(|token| token.to_le_bytes()).collect();
                    fields.add(&bytes);
                }
            }
        }
    }

    fn size(&self) -> usize {
        match &self.inputs {
            Inputs::Texts(texts) => texts.iter().map(String::len).sum(),
            Inputs::Tokens(tokens) => tokens.iter().map(|list| list.len() * size_of::<u32>()).sum(),
        }
    }
}

impl Distinct for Recording {
    const KIND: &'static str = "recording";

    fn fields(&self, fields: &mut Fields) {
        let Self { bytes, name, language, prompt, temperature, chunking, wanted } = self;
        fields.add(bytes);
        // Its ending says what it is.
        fields.add(name.as_bytes());
        fields.add_if_any(language.as_deref().map(str::as_bytes));
        fields.add_if_any(prompt.as_deref().map(str::as_bytes));
        let temperature = temperature.map(f32::to_le_bytes);
        fields.add_if_any(temperature.as_ref().map(<[u8; 4]>::as_slice));
        let Wanted { form, words, segments, logprobs } = *wanted;
        // The words are the same, whatever they are written into.
        let form = if wanted.is_plain() { "" } else { form.name() };
        fields.add(form.as_bytes());
        fields.add(&[u8::from(words), u8::from(segments), u8::from(logprobs)]);
        let vad = match chunking {
            None => return fields.add(b""),
            Some(Chunking::Auto) => return fields.add(b"auto"),
            Some(Chunking::Vad(vad)) => vad,
        };
        let Vad { threshold, prefix_padding_ms, silence_duration_ms } = vad;
        fields.add(b"vad");
        let threshold = threshold.map(f32::to_bits);
        for number in [threshold, *prefix_padding_ms, *silence_duration_ms] {
            let number = number.map(u32::to_le_bytes);
            fields.add_if_any(number.as_ref().map(<[u8; 4]>::as_slice));
        }
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
