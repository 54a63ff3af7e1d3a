//! Owns reading a streamed response, whichever protocol it is in, and what holds for the events of
//! all of them.
//!
//! **Invariant:** however the bytes are split, the events are the same; no more than one event of
//! the wire is kept.

use crate::conversation::{Stop, Usage};
use crate::dialect::Malformed;
use crate::event::{Event, StreamError};
use crate::frames::Frames;
use crate::sse::Sse;
use crate::{anthropic, bedrock, gemini, openai};

/// An answer calls no more tools than this.
const MOST_CALLS: usize = 1024;

/// The reader of a streamed response with a status of success.
#[derive(Debug)]
pub struct Reader {
    wire: Wire,
    told: Told,
}

#[derive(Debug)]
enum Wire {
    OpenAi(Sse, openai::Stream),
    Anthropic(Sse, anthropic::Stream),
    Gemini(Sse, gemini::Stream),
    Bedrock(Frames, bedrock::Stream),
}

impl Reader {
    pub(crate) fn openai() -> Self {
        Self::new(Wire::OpenAi(Sse::default(), openai::Stream::default()))
    }

    pub(crate) fn anthropic() -> Self {
        Self::new(Wire::Anthropic(Sse::default(), anthropic::Stream::default()))
    }

    pub(crate) fn gemini() -> Self {
        Self::new(Wire::Gemini(Sse::default(), gemini::Stream))
    }

    pub(crate) fn bedrock() -> Self {
        Self::new(Wire::Bedrock(Frames::default(), bedrock::Stream::default()))
    }

    fn new(wire: Wire) -> Self {
        Self { wire, told: Told::default() }
    }

    /// Bytes as they come, split anywhere. Appends to `events`; those that came before an error are
    /// there.
    ///
    /// # Errors
    /// [`StreamError::Malformed`] and [`StreamError::Failed`]; nothing may be pushed after either.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamError> {
        let mut pen = Pen { told: &mut self.told, events };
        match &mut self.wire {
            Wire::OpenAi(sse, stream) => sse.push(bytes, |data| stream.take(data, &mut pen)),
            Wire::Anthropic(sse, stream) => sse.push(bytes, |data| stream.take(data, &mut pen)),
            Wire::Gemini(sse, stream) => sse.push(bytes, |data| stream.take(data, &mut pen)),
            Wire::Bedrock(frames, stream) => {
                frames.push(bytes, |frame| stream.take(frame, &mut pen))
            }
        }
    }

    /// The response is over.
    ///
    /// # Errors
    /// [`StreamError::Cut`] unless the answer came to its own end.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), StreamError> {
        let mut pen = Pen { told: &mut self.told, events };
        let last = match &mut self.wire {
            Wire::OpenAi(sse, stream) => sse.finish(|data| stream.take(data, &mut pen)),
            Wire::Anthropic(sse, stream) => sse.finish(|data| stream.take(data, &mut pen)),
            Wire::Gemini(sse, stream) => sse.finish(|data| stream.take(data, &mut pen)),
            Wire::Bedrock(..) => Ok(()),
        };
        if let Err(StreamError::Failed(failure)) = last {
            return Err(StreamError::Failed(failure));
        }
        let is_amid = matches!(&self.wire, Wire::Bedrock(frames, _) if frames.is_amid());
        match self.told.has_stopped && !is_amid && last.is_ok() {
            true => Ok(()),
            false => Err(StreamError::Cut),
        }
    }
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    has_model: bool,
    has_stopped: bool,
    calls: usize,
    usage: Option<Usage>,
}

/// Writes events, and leaves out those that no answer has.
#[derive(Debug)]
pub(crate) struct Pen<'a> {
    told: &'a mut Told,
    events: &'a mut Vec<Event>,
}

impl Pen<'_> {
    fn say(&mut self, event: Event) {
        if !self.told.has_stopped {
            self.events.push(event);
        }
    }

    pub(crate) fn model(&mut self, model: &str) {
        if !self.told.has_model && !model.is_empty() {
            self.told.has_model = true;
            self.say(Event::Model(model.to_owned()));
        }
    }

    pub(crate) fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.say(Event::Text(text));
        }
    }

    pub(crate) fn reasoning(&mut self, text: String) {
        if !text.is_empty() {
            self.say(Event::Reasoning(text));
        }
    }

    pub(crate) fn sealed(&mut self, seal: String) {
        if !seal.is_empty() {
            self.say(Event::Sealed(seal));
        }
    }

    pub(crate) fn redacted(&mut self, data: String) {
        if !data.is_empty() {
            self.say(Event::Redacted(data));
        }
    }

    /// A call begins; its number.
    pub(crate) fn call(
        &mut self,
        id: String,
        name: String,
        signature: Option<String>,
    ) -> Result<usize, Malformed> {
        let index = self.told.calls;
        if index >= MOST_CALLS {
            return Err(Malformed(format!("more than {MOST_CALLS} calls of tools in it")));
        }
        self.told.calls += 1;
        self.say(Event::Call { index, id, name, signature });
        Ok(index)
    }

    pub(crate) fn arguments(&mut self, index: usize, text: String) {
        if !text.is_empty() {
            self.say(Event::Arguments { index, text });
        }
    }

    pub(crate) fn usage(&mut self, usage: Usage) {
        if self.told.usage != Some(usage) {
            self.told.usage = Some(usage);
            self.events.push(Event::Usage(usage));
        }
    }

    pub(crate) fn stop(&mut self, stop: Stop) {
        self.say(Event::Stop(stop));
        self.told.has_stopped = true;
    }

    /// How many calls began.
    pub(crate) fn calls(&self) -> usize {
        self.told.calls
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.told.has_stopped
    }
}
