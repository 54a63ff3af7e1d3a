//! Owns what becomes of an effort where models are asked to think in other ways: Claude's, of Anthropic
//! and of Bedrock, and Gemini's.
//!
//! Their older models take a number of tokens and no word, their newer ones a word and no number, so that
//! the model's name decides; a name that is not known is a newer model's.
//!
//! **Invariant:** a number of tokens for thoughts is less than that of the whole answer.

use serde_json::{Value, json};

use crate::conversation::{Conversation, Effort, Said, Thinking, ToolChoice, Turn};
use crate::unfit::What;

/// Parts of the names of Claudes that take a number: those up to 4.5.
const NUMBERED_CLAUDES: [&str; 9] = [
    "claude-3",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2",
    "claude-opus-4-5",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
];
/// Parts of the names of Geminis that do.
const NUMBERED_GEMINIS: [&str; 2] = ["gemini-1", "gemini-2"];
/// Claude thinks with so many tokens at least.
const LEAST: u32 = 1024;

/// So many tokens for thoughts, as Google documents it for OpenAI's words.
fn budget(effort: Effort) -> u32 {
    match effort {
        Effort::None => 0,
        Effort::Minimal | Effort::Low => LEAST,
        Effort::Medium => 8192,
        Effort::High | Effort::ExtraHigh | Effort::Max => 24_576,
    }
}

/// What a Claude is told of how much to think.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OfClaude {
    /// `thinking`
    pub(crate) thinking: Option<Value>,
    /// The effort of the output's configuration.
    pub(crate) effort: Option<&'static str>,
    /// So many tokens beside those of the answer, where nobody limits it.
    pub(crate) room: u32,
}

/// What the Claude called `model` is told.
///
/// # Errors
/// What cannot be asked of an older one: thoughts in an answer that has no room for them, or together
/// with what excludes them.
pub(crate) fn of_claude(model: &str, conversation: &Conversation) -> Result<OfClaude, What> {
    let Thinking { effort, is_told } = conversation.thinking;
    let silent = |thinking, room| OfClaude { thinking, effort: None, room };
    let effort = match effort {
        None => return Ok(silent(None, 0)),
        Some(Effort::None) => return Ok(silent(Some(json!({ "type": "disabled" })), 0)),
        Some(effort) => effort,
    };
    let room = budget(effort);
    let told = |mut thinking: Value| {
        if is_told {
            thinking["display"] = "summarized".into();
        }
        Some(thinking)
    };
    if NUMBERED_CLAUDES.iter().any(|name| model.contains(name)) {
        if lost_thoughts(&conversation.turns) {
            return Ok(silent(None, room));
        }
        let budget = number(conversation, room)?;
        return Ok(silent(told(json!({ "type": "enabled", "budget_tokens": budget })), room));
    }
    let word = match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::None | Effort::High => "high",
        Effort::ExtraHigh => "xhigh",
        Effort::Max => "max",
    };
    let is_free = !excludes_thoughts(conversation);
    let thinking = if is_free { told(json!({ "type": "adaptive" })) } else { None };
    Ok(OfClaude { thinking, effort: Some(word), room })
}

/// So many tokens for thoughts, of `room` at most, so that the answer has as much.
fn number(conversation: &Conversation, room: u32) -> Result<u32, What> {
    let most = conversation.max_tokens.unwrap_or(u32::MAX);
    if most <= LEAST {
        return Err(What::Parameter("room for thoughts in an answer of up to 1024 tokens"));
    }
    if excludes_thoughts(conversation) {
        let what =
            "thoughts beside a temperature, a top_p, a top_k or a tool that has to be called";
        return Err(What::Parameter(what));
    }
    Ok(room.min(most / 2).max(LEAST))
}

/// Whether the model's last turn has a call without the sealed thoughts before it.
fn lost_thoughts(turns: &[Turn]) -> bool {
    let said = turns.iter().rev().find_map(|turn| match turn {
        Turn::Model(said) => Some(said.as_slice()),
        Turn::User(_) | Turn::Results(_) => None,
    });
    let said = said.unwrap_or_default();
    // Thoughts without a seal do not go back.
    let first = said.iter().find(|said| !matches!(said, Said::Reasoning { signature: None, .. }));
    let is_sealed = matches!(first, Some(Said::Reasoning { .. } | Said::Redacted(_)));
    !is_sealed && said.iter().any(|said| matches!(said, Said::Call(_)))
}

/// Whether a Claude is asked what it does not do when it thinks beforehand.
fn excludes_thoughts(conversation: &Conversation) -> bool {
    let sampling = &conversation.sampling;
    let is_forced = match conversation.tool_choice {
        ToolChoice::Auto | ToolChoice::Never => false,
        ToolChoice::Any | ToolChoice::Named(_) => true,
    };
    let is_below = |value: Option<f32>, least| value.is_some_and(|value| value < least);
    let is_sampled = is_below(sampling.temperature, 1.0) || is_below(sampling.top_p, 0.95);
    is_forced || is_sampled || sampling.top_k.is_some()
}

/// Gemini's `thinkingConfig`, if anything is asked.
///
/// # Errors
/// A newer one cannot be kept from thinking.
pub(crate) fn of_gemini(model: &str, thinking: Thinking) -> Result<Option<Value>, What> {
    let mut config = json!({});
    let is_numbered = NUMBERED_GEMINIS.iter().any(|name| model.contains(name));
    match thinking.effort {
        None => {}
        Some(effort) if is_numbered => config["thinkingBudget"] = budget(effort).into(),
        Some(Effort::None) => return Err(What::Parameter("way not to think")),
        Some(Effort::Minimal) => config["thinkingLevel"] = "MINIMAL".into(),
        Some(Effort::Low) => config["thinkingLevel"] = "LOW".into(),
        Some(Effort::Medium) => config["thinkingLevel"] = "MEDIUM".into(),
        Some(Effort::High) => config["thinkingLevel"] = "HIGH".into(),
        Some(Effort::ExtraHigh | Effort::Max) => config["thinkingLevel"] = "XHIGH".into(),
    }
    if thinking.is_told && thinking.effort != Some(Effort::None) {
        config["includeThoughts"] = true.into();
    }
    let is_asked = config.as_object().is_some_and(|config| !config.is_empty());
    Ok(is_asked.then_some(config))
}
