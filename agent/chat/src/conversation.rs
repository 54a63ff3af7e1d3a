//! Owns the one form of a conversation and of the answer to it, that every protocol is made from.
//!
//! **Invariant:** nothing here is a provider's word; tokens are counted in one way: those that were
//! read from a cache are a part of those in, those of reasoning a part of those out. These are stored
//! where a conversation is held: what is released stays as it is, and enums grow at the end only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::media::{Audio, Image};
use crate::written;

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// What the model is and does.
    pub system: Option<String>,
    /// Who said what; the last turn is not the model's.
    pub turns: Vec<Turn>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it has to.
    pub tool_choice: ToolChoice,
    /// Whether it may call several at once; what is not set is the provider's affair.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub output: Output,
    /// How much it thinks beforehand.
    pub thinking: Thinking,
    /// How many words it makes; what is not set is the provider's affair.
    pub verbosity: Option<Verbosity>,
    /// How its words are chosen.
    pub sampling: Sampling,
    /// The answer ends at so many tokens at the latest.
    pub max_tokens: Option<u32>,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// What changes no answer; stored beside the rest, which is older.
    #[serde(skip)]
    pub hints: Hints,
}

/// What tells a provider who asks, what to cache and what to expect: no answer is another one for it. A
/// protocol that has no such field goes without it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hints {
    /// The end user, as the caller calls them.
    pub user: Option<String>,
    /// The end user, as the provider is to tell them from others when it looks for abuse.
    pub safety_identifier: Option<String>,
    /// The same for questions that begin alike.
    pub prompt_cache_key: Option<String>,
    /// What the answer will say, as far as that is foreseen.
    pub prediction: Option<String>,
}

impl Hints {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self { user, safety_identifier, prompt_cache_key, prediction } = self;
        [user, safety_identifier, prompt_cache_key, prediction].into_iter().all(Option::is_none)
    }
}

impl Conversation {
    /// Whether tools may be called, and no more than one in an answer.
    pub(crate) fn takes_one_call(&self) -> bool {
        let may_call = !self.tools.is_empty() && self.tool_choice != ToolChoice::Never;
        may_call && self.parallel_tool_calls == Some(false)
    }
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Turn {
    /// The asker's.
    User(Vec<Part>),
    /// The model's, as it was answered before.
    Model(Vec<Said>),
    /// What the tools returned that the model called in its turn before.
    Results(Vec<ToolResult>),
}

/// A part of what is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Who speaks, of several: the first part of a turn. 1 to 64 characters.
    Speaker(String),
    /// Words.
    Text(String),
    /// A picture: its kind, the file's bytes, and how closely it is to be looked at.
    Image(Image, Bytes, Detail),
    /// A recording: its kind, and the file's bytes.
    Audio(Audio, Bytes),
}

/// How closely a picture is to be looked at, from the coarsest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Detail {
    /// For few tokens.
    Low,
    /// As the provider likes.
    #[default]
    Auto,
    /// For many tokens.
    High,
    /// In the size that it has.
    Original,
}

impl Detail {
    /// All, by OpenAI's words.
    pub(crate) const NAMED: [(&str, Self); 4] = [
        ("auto", Self::Auto),
        ("low", Self::Low),
        ("high", Self::High),
        ("original", Self::Original),
    ];
}

/// A part of what a model says, in the order in which it says them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// Words.
    Text(String),
    /// What it thought before, as far as it is shown.
    Reasoning {
        /// The thoughts.
        text: String,
        /// The provider's seal on them, without which it does not take them back.
        signature: Option<String>,
    },
    /// What it thought before and the provider hides; goes back as it came.
    Redacted(String),
    /// A tool that it wants called.
    Call(ToolCall),
}

/// A tool that is to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Tells the call from others.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// An object; a text where the model wrote something that is not JSON.
    #[serde(with = "written")]
    pub arguments: Value,
    /// The provider's seal on the call, without which it does not take it back.
    pub signature: Option<String>,
}

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call's.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// What it returned.
    pub content: String,
    /// Whether that is an error.
    pub is_error: bool,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// 1 to 64 of letters, digits, `_` and `-`.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON schema of its arguments, an object.
    #[serde(with = "written")]
    pub parameters: Value,
    /// Whether the provider is to hold the model to the schema.
    pub strict: bool,
}

/// Whether a tool has to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    Never,
    /// At least one.
    Any,
    /// This one.
    Named(String),
}

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Output {
    /// Words.
    #[default]
    Text,
    /// JSON.
    Json {
        /// What the schema is called: 1 to 64 of letters, digits, `_` and `-`.
        name: String,
        /// The JSON schema, an object.
        #[serde(with = "written")]
        schema: Value,
    },
}

/// How much a model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Thinking {
    /// How much; what is not set is the provider's affair.
    pub effort: Option<Effort>,
    /// Whether its thoughts are to be told, where the provider leaves the choice.
    pub is_told: bool,
}

/// How much a model thinks, from the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effort {
    /// Not at all.
    None,
    /// Next to nothing.
    Minimal,
    /// Little.
    Low,
    /// As much as is usual.
    Medium,
    /// Much.
    High,
    /// More than much.
    ExtraHigh,
    /// As much as it can.
    Max,
}

impl Effort {
    /// All, by OpenAI's words, which are Mistral's too.
    pub(crate) const NAMED: [(&str, Self); 7] = [
        ("none", Self::None),
        ("minimal", Self::Minimal),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("xhigh", Self::ExtraHigh),
        ("max", Self::Max),
    ];
}

/// How many words a model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verbosity {
    /// Few.
    Low,
    /// As many as is usual.
    Medium,
    /// Many.
    High,
}

impl Verbosity {
    /// All, by OpenAI's words.
    pub(crate) const NAMED: [(&str, Self); 3] =
        [("low", Self::Low), ("medium", Self::Medium), ("high", Self::High)];
}

/// The word for `value` among those named.
pub(crate) fn word<T: Copy + PartialEq>(named: &[(&'static str, T)], value: T) -> &'static str {
    named.iter().find(|(_, each)| *each == value).map_or("", |(word, _)| word)
}

/// How words are chosen; what is not set is the provider's affair.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sampling {
    /// `0.0..=2.0`; some take no more than 1.
    pub temperature: Option<f32>,
    /// `0.0..=1.0`
    pub top_p: Option<f32>,
    /// Out of so many words at most.
    pub top_k: Option<u32>,
    /// For the same words again.
    pub seed: Option<u32>,
    /// `-2.0..=2.0`
    pub presence_penalty: Option<f32>,
    /// `-2.0..=2.0`
    pub frequency_penalty: Option<f32>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The model, as the provider calls it; empty where it does not say.
    pub model: String,
    /// What it says.
    pub said: Vec<Said>,
    /// Why it ended.
    pub stop: Stop,
    /// What was counted, if anything was.
    pub usage: Option<Usage>,
}

impl Answer {
    /// The words of the answer without thoughts and calls; `None` when there are none.
    pub fn text(&self) -> Option<String> {
        let words = self.said.iter().filter_map(|said| match said {
            Said::Text(text) => Some(text.as_str()),
            Said::Reasoning { .. } | Said::Redacted(_) | Said::Call(_) => None,
        });
        let text: String = words.collect();
        (!text.is_empty()).then_some(text)
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// It was complete, or came to a stop sequence.
    End,
    /// It came to its length limit.
    Length,
    /// It waits for tools.
    Calls,
    /// The model would not answer; with its words, if any.
    Declined(String),
    /// The provider's filter took it, or the question, away.
    Filtered,
    /// For a reason that only the provider has.
    Other(String),
}

/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Of all that was asked.
    pub input: u64,
    /// Of these, out of a cache.
    pub cached: u64,
    /// Of all that was answered, reasoning too.
    pub output: u64,
    /// Of these, for reasoning.
    pub reasoning: u64,
}
