//! Owns the typed events of a response that is kept: told as it comes along, and again from any of them on.
//!
//! | number | event |
//! |---|---|
//! | 0 | `response.created` |
//! | 1 | `response.queued` |
//! | 2 | `response.in_progress` |
//! | from 3 on | those of the answer, to `response.completed` or `response.incomplete` |
//! | 3 | where there is none: `response.failed` or `response.cancelled` |
//!
//! An `error` is none of the response's events: it has the number of the last one, so that whoever goes on
//! behind it misses nothing.
//!
//! **Invariant:** an event has the same number whenever it is told; one that is left out leaves its number
//! free.

use super::write::{Standing, Writer, replay};
use crate::conversation::Answer;
use crate::event::Event;
use crate::served::json::{number, text};
use crate::served::{Asked, Named};

/// That it is being answered.
const IN_PROGRESS: u64 = 2;
/// The first event behind.
const ENDS: u64 = 3;

/// Tells the events of one response.
#[derive(Debug)]
pub struct Retelling {
    writer: Writer,
}

impl Retelling {
    /// The events of a response; `asked` is what was read of its request, and `after` the number of the last
    /// event that its reader has, where it has one.
    pub fn new(named: &Named, asked: &Asked, after: Option<u64>) -> Self {
        let mut writer = Writer::new(named, asked);
        writer.has_begun = true;
        writer.from = after.map_or(0, |after| after.saturating_add(1));
        Self { writer }
    }

    /// Appends what is new to `out`, the response standing so; behind one that has its end nothing follows.
    pub fn stand(&mut self, standing: &Standing, out: &mut Vec<u8>) {
        self.begin(out);
        match standing {
            Standing::Queued => {}
            Standing::InProgress => self.progress(out),
            Standing::Cancelled => {
                self.writer.sequence = ENDS;
                self.whole("response.cancelled", "cancelled", out);
            }
            Standing::Failed { code, message } => {
                self.writer.sequence = ENDS;
                self.writer.fail(code, message, out);
            }
        }
    }

    /// Appends what is new to `out`, to the end of its answer; nothing follows.
    pub fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        self.begin(out);
        self.progress(out);
        let mut calls = 0;
        for said in &answer.said {
            replay(said, &mut calls, |event| self.writer.write(&event, out));
        }
        self.writer.usage = answer.usage;
        self.writer.write(&Event::Stop(answer.stop.clone()), out);
        self.writer.finish(out);
    }

    /// Appends an `error` to `out`: its events end here for now, and the response goes on without them.
    pub fn break_off(&mut self, code: &str, message: &str, out: &mut Vec<u8>) {
        self.begin(out);
        out.extend_from_slice(b"event: error\ndata: {\"type\":\"error\",\"sequence_number\":");
        number(out, self.writer.sequence.max(self.writer.from).saturating_sub(1));
        out.extend_from_slice(b",\"code\":");
        text(out, code);
        out.extend_from_slice(b",\"message\":");
        text(out, message);
        out.extend_from_slice(b",\"param\":null}\n\n");
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.writer.sequence == 0 {
            self.whole("response.created", "queued", out);
            self.whole("response.queued", "queued", out);
        }
    }

    fn progress(&mut self, out: &mut Vec<u8>) {
        if self.writer.sequence == IN_PROGRESS {
            self.whole("response.in_progress", "in_progress", out);
        }
    }

    fn whole(&mut self, kind: &str, status: &str, out: &mut Vec<u8>) {
        let mut response = self.writer.response.clone();
        response["status"] = status.into();
        self.writer.whole(kind, &response, out);
    }
}
