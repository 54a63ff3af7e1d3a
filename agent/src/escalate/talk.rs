//! Owns asking a destination what its caller asks of a model: a conversation, in one piece or piece by
//! piece, and vectors of texts.
//!
//! **Invariant:** what the destination's protocol cannot express is never sent; an answer that was cut
//! off is an error, and costs at least what was set apart.

use std::sync::Arc;
use std::time::Duration;

use holdfast_chat::{
    self as chat, Conversation, Dialect, Event, Part, Reader, StreamError, Unfit, Usage, Vectors,
};
use tokio::time::Instant;

use super::Escalator;
use super::chat::{answered, count, posted};
use super::error::{Fault, SendError};
use super::hedge::Attempt;
use super::http::Flow;
use super::passage::{End, Errand, Passage};
use super::tally::Tally;
use super::turn::Turn;
use crate::destination::{Chat, Destination, Protocol, Zone};
use crate::inquiry::{Inquiry, Terms, Texts, length};
use crate::policy::Cleared;
use crate::price::{Content, wav_ms};
use crate::queue::{RequestId, URGENT};
use crate::request::IdempotencyKey;

/// Vectors are longer than other answers: so many bytes are read of them at most.
const MAX_VECTORS: usize = 32 << 20;

/// What a destination answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Told<A> {
    /// The answer.
    pub answer: A,
    /// What it cost, in millionths of the operator's currency; none where the destination has no prices.
    pub cost_micros: Option<u64>,
}

impl Escalator {
    /// Asks for the answer to a conversation in one piece, as this attempt of several, or the only one.
    ///
    /// # Errors
    /// [`SendError`], whose [`next`](SendError::next) says what to do.
    pub async fn converse(
        &self,
        cleared: Cleared<'_, Inquiry<Conversation>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Told<chat::Answer>, SendError> {
        self.converse_with(cleared, within, None, Some(attempt)).await
    }

    /// As [`Escalator::converse`], by somebody who has a turn already.
    ///
    /// # Errors
    /// As there.
    pub async fn converse_in(
        &self,
        turn: Turn,
        cleared: Cleared<'_, Inquiry<Conversation>>,
        within: Duration,
    ) -> Result<Told<chat::Answer>, SendError> {
        self.converse_with(cleared, within, Some(turn), None).await
    }

    async fn converse_with(
        &self,
        cleared: Cleared<'_, Inquiry<Conversation>>,
        within: Duration,
        turn: Option<Turn>,
        attempt: Option<&Attempt>,
    ) -> Result<Told<chat::Answer>, SendError> {
        let destination = cleared.destination();
        let sending = async {
            let Inquiry { id, terms, matter } = cleared.request();
            let (chat, conversation) = (talked_to(destination)?, cut(destination, matter));
            let call = chat.dialect.call(&chat.model, &conversation);
            let call = fitted(destination, terms, call)?;
            let errand = errand(destination, (*id, terms), &conversation, &call, within);
            let errand = Errand { attempt, ..errand };
            let passage = self.enter(&errand, turn).await?;
            let key = key(terms, &id.to_string());
            let result = answered(&passage.exchange(), chat, call, &key).await;
            let usage = result.as_ref().ok().and_then(|answer| answer.usage);
            passage.settle(result, usage.as_ref()).await
        };
        let (answer, cost_micros) = self.counted(&destination.name, sending).await?;
        Ok(Told { answer, cost_micros })
    }

    /// The same piece by piece; returns when the first may come.
    ///
    /// # Errors
    /// As there.
    pub async fn converse_in_pieces(
        &self,
        cleared: Cleared<'_, Inquiry<Conversation>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Telling, SendError> {
        let (destination, began) = (cleared.destination(), Instant::now());
        let begun = self.begin(cleared, within, attempt).await;
        if let Err(error) = &begun {
            self.tally.note(&destination.name, began, Some(error));
        }
        let (passage, flow, reader) = begun?;
        let tally = Arc::clone(&self.tally);
        let course = Course { passage, tally, began };
        let (course, usage, cost_micros) = (Some(course), None, None);
        Ok(Telling { course, flow, reader, usage, is_over: false, cost_micros })
    }

    async fn begin(
        &self,
        cleared: Cleared<'_, Inquiry<Conversation>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<(Passage, Flow, Reader), SendError> {
        let (destination, Inquiry { id, terms, matter }) =
            (cleared.destination(), cleared.request());
        let (chat, conversation) = (talked_to(destination)?, cut(destination, matter));
        let call = chat.dialect.call_streamed(&chat.model, &conversation);
        let call = fitted(destination, terms, call)?;
        let errand = errand(destination, (*id, terms), &conversation, &call, within);
        let errand = Errand { attempt: Some(attempt), ..errand };
        let mut passage = self.enter(&errand, None).await?;
        let exchange = passage.exchange();
        let call = posted(&exchange, chat, call, &key(terms, &id.to_string()));
        let opened = exchange.open(call, chat.dialect.stream_type()).await;
        passage.on_record().await;
        match opened {
            Ok(flow) => Ok((passage, flow, chat.dialect.reader())),
            Err(error) => {
                passage.end(End::Failed(&error), None);
                Err(error)
            }
        }
    }

    /// Asks for vectors of texts, as one attempt of several.
    ///
    /// # Errors
    /// [`SendError`], whose [`next`](SendError::next) says what to do.
    pub(crate) async fn embed(
        &self,
        cleared: Cleared<'_, Inquiry<Texts>>,
        within: Duration,
        attempt: &Attempt,
    ) -> Result<Told<Vectors>, SendError> {
        let destination = cleared.destination();
        let attempt = Some(attempt);
        let sending = async {
            let Inquiry { id, terms, matter } = cleared.request();
            let chat = talked_to(destination)?;
            let Texts { inputs, dimensions, user } = matter;
            let call = chat.dialect.embed(&chat.model, inputs, *dimensions, user.as_deref());
            let call = fitted(destination, terms, call)?;
            let content = Content { text_bytes: length(&call.body), ..Content::default() };
            let errand = Errand { tokens_out: Some(0), ..plain(destination, (*id, terms), within) };
            let errand = Errand { content, bytes: length(&call.body), attempt, ..errand };
            let passage = self.enter(&errand, None).await?;
            let exchange = passage.exchange();
            let call = posted(&exchange, chat, call, &key(terms, &id.to_string()));
            let result = match exchange.call_up_to(call, MAX_VECTORS).await {
                Ok(reply) => exchange.json_body(&reply).and_then(|body| {
                    let read = chat.dialect.vectors(body);
                    let foreign = |what: String| Fault::Foreign { what: exchange.told(&what) };
                    read.map_err(|error| exchange.unusable(foreign(error.0)))
                }),
                Err(error) => Err(error),
            };
            let usage = result.as_ref().ok().and_then(|vectors| vectors.usage);
            if let Some(usage) = &usage {
                count(&destination.name, usage);
            }
            passage.settle(result, usage.as_ref()).await
        };
        let (answer, cost_micros) = self.counted(&destination.name, sending).await?;
        Ok(Told { answer, cost_micros })
    }
}

/// An answer on its way. Dropped before its end, the call ends, and counts as what was set apart.
#[derive(Debug)]
pub struct Telling {
    /// Until the end.
    course: Option<Course>,
    flow: Flow,
    reader: Reader,
    usage: Option<Usage>,
    /// Whether its last words came.
    is_over: bool,
    cost_micros: Option<u64>,
}

#[derive(Debug)]
struct Course {
    passage: Passage,
    tally: Arc<Tally>,
    began: Instant,
}

impl Telling {
    /// Adds what comes next to `events`, as soon as it comes; false at the end of a whole answer.
    ///
    /// # Errors
    /// [`SendError`] when the answer is cut off or is none; nothing comes after it.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<bool, SendError> {
        let Some(course) = &self.course else { return Ok(false) };
        let chunk = match self.flow.next().await {
            Ok(chunk) => chunk,
            // The answer is whole; only the end of its frame is missing.
            Err(_) if self.is_over => None,
            Err(error) => {
                let error = course.passage.exchange().lost(error);
                return Err(self.broken(error));
            }
        };
        let before = events.len();
        let read = match &chunk {
            Some(bytes) => self.reader.push(bytes, events),
            None => self.reader.finish(events),
        };
        for event in events.get(before..).unwrap_or_default() {
            match event {
                Event::Usage(usage) => self.usage = Some(*usage),
                Event::Stop(_) => self.is_over = true,
                _ => {}
            }
        }
        match (read, chunk) {
            (Ok(()), Some(_)) => {
                if let Some(course) = self.course.as_mut().filter(|_| events.len() > before) {
                    course.passage.answers();
                }
                Ok(true)
            }
            (Ok(()), None) => {
                self.end();
                Ok(false)
            }
            (Err(error), _) => Err(self.unread(error)),
        }
    }

    /// What the whole answer cost, in millionths of the operator's currency.
    pub fn cost_micros(&self) -> Option<u64> {
        self.cost_micros
    }

    fn end(&mut self) {
        let Some(Course { passage, tally, began }) = self.course.take() else { return };
        let name = passage.destination().name.clone();
        if let Some(usage) = &self.usage {
            count(&name, usage);
        }
        self.cost_micros = passage.end(End::Answered, self.usage.as_ref());
        tally.note(&name, began, None);
    }

    fn unread(&mut self, error: StreamError) -> SendError {
        let Some(course) = &self.course else { return self.broken(cut_off(String::new())) };
        let exchange = course.passage.exchange();
        let error = match error {
            StreamError::Malformed(what) => {
                let what = exchange.told(&what.0);
                exchange.unusable(Fault::Foreign { what })
            }
            StreamError::Failed(failure) => exchange.sort_failure(200, &failure),
            StreamError::Cut => cut_off(exchange.name()),
        };
        self.broken(error)
    }

    fn broken(&mut self, error: SendError) -> SendError {
        if let Some(Course { passage, tally, began }) = self.course.take() {
            let name = passage.destination().name.clone();
            passage.end(End::Broken(Some(&error)), self.usage.as_ref());
            tally.note(&name, began, Some(&error));
        }
        error
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(Course { passage, tally, .. }) = self.course.take() {
            tally.note_left(&passage.destination().name);
            passage.end(End::Broken(None), self.usage.as_ref());
        }
    }
}

/// A call that can be made, with what another agent has to know of it.
fn fitted(
    destination: &Destination,
    terms: &Terms,
    call: Result<chat::Call, Unfit>,
) -> Result<chat::Call, SendError> {
    let unfit = |source| SendError::Unfit { destination: destination.name.clone(), source };
    let mut call = call.map_err(unfit)?;
    call.headers.extend(passed_on(destination, terms));
    Ok(call)
}

/// What another agent has to know of an inquiry: its terms, and how many agents it came through; of those its
/// class and the count, should one be behind OpenAI's protocol at the site.
pub(super) fn passed_on(destination: &Destination, terms: &Terms) -> Vec<(&'static str, String)> {
    let is_agent = match &destination.protocol {
        Protocol::HoldfastModel(_) => true,
        Protocol::Chat(chat)
            if chat.dialect == Dialect::OpenAi && destination.zone == Zone::Site =>
        {
            false
        }
        _ => return Vec::new(),
    };
    let hops = terms.hops.saturating_add(1).to_string();
    let mut told = vec![("holdfast-class", terms.class.to_string()), ("holdfast-hops", hops)];
    if is_agent {
        let within = terms.within.min(destination.timeout).as_millis().max(1);
        told.push(("holdfast-priority", terms.priority.get().to_string()));
        told.push(("holdfast-deadline-ms", within.to_string()));
        let limit = terms.cost_limit_micros;
        told.extend(limit.map(|limit| ("holdfast-cost-limit-micros", limit.to_string())));
    }
    told
}

fn cut_off(destination: String) -> SendError {
    let cause = "its stream ended before its answer did".to_owned();
    SendError::Interrupted { destination, cause, waited: None }
}

/// What is known of the model there; a destination that is asked tasks alone is not talked to.
pub(super) fn talked_to(destination: &Destination) -> Result<&Chat, SendError> {
    let alone = || SendError::TasksAlone { destination: destination.name.clone() };
    destination.chat().ok_or_else(alone)
}

/// The conversation, its answer no longer than the operator lets it be there.
fn cut<'a>(
    destination: &Destination,
    conversation: &'a Conversation,
) -> std::borrow::Cow<'a, Conversation> {
    let most = destination.max_tokens();
    match most.filter(|most| conversation.max_tokens.is_none_or(|asked| asked > *most)) {
        Some(most) => {
            std::borrow::Cow::Owned(Conversation { max_tokens: Some(most), ..conversation.clone() })
        }
        None => std::borrow::Cow::Borrowed(conversation),
    }
}

pub(super) fn key(terms: &Terms, id: &str) -> String {
    terms.key.as_ref().map_or_else(|| id.to_owned(), IdempotencyKey::told)
}

pub(super) fn plain<'a>(
    destination: &'a Destination,
    (id, terms): (RequestId, &Terms),
    within: Duration,
) -> Errand<'a> {
    let model = destination.chat().map_or("", |chat| chat.model.as_str());
    Errand {
        destination,
        id,
        model,
        asked: model,
        class: terms.class,
        hops: terms.hops,
        is_urgent: terms.priority.get() >= URGENT,
        bytes: 0,
        content: Content::default(),
        tokens_out: None,
        cost_limit: terms.cost_limit_micros,
        within,
        attempt: None,
    }
}

fn errand<'a>(
    destination: &'a Destination,
    asked: (RequestId, &Terms),
    conversation: &Conversation,
    call: &chat::Call,
    within: Duration,
) -> Errand<'a> {
    let bytes = length(&call.body);
    let content = content(conversation, bytes);
    let tokens_out = call.most_tokens;
    Errand { bytes, content, tokens_out, ..plain(destination, asked, within) }
}

/// What is in a conversation that becomes so many bytes.
fn content(conversation: &Conversation, bytes: u64) -> Content {
    let mut content = Content { text_bytes: bytes, ..Content::default() };
    let parts = conversation.turns.iter().filter_map(|turn| match turn {
        chat::Turn::User(parts) => Some(parts),
        chat::Turn::Model(_) | chat::Turn::Results(_) => None,
    });
    for part in parts.flatten() {
        let file = match part {
            Part::Speaker(_) | Part::Text(_) => continue,
            Part::Image(_, file, _) => {
                content.images += 1;
                file
            }
            Part::Audio(_, file) => {
                content.audio_ms = content.audio_ms.saturating_add(wav_ms(file));
                file
            }
        };
        // In base64 they are no words.
        let in_base64 = length(file).div_ceil(3).saturating_mul(4);
        content.text_bytes = content.text_bytes.saturating_sub(in_base64);
    }
    content
}
