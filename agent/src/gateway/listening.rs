//! Owns an answer that comes piece by piece and that several may hear: whoever comes later hears what was
//! told already, and then goes on with the others.
//!
//! It is taken from its destination as it comes, and not as its slowest listener takes it; it is bounded as
//! every stream is.
//!
//! **Invariant:** all hear the same pieces in the same order, and the same end; without a listener the call
//! to the destination ends.

use std::sync::Arc;
use std::time::Duration;

use holdfast_chat::{Answer, Event, Gathering};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::in_flight::Sending;
use super::{Answered, Refused};
use crate::escalate::{SendError, Telling};

/// The rest of an answer on its way.
#[derive(Debug)]
pub enum Rest {
    /// To one caller alone.
    Own(Box<Telling>),
    /// To several, or one that may be kept.
    Heard(Listening),
}

impl Rest {
    /// Adds what comes next to `events`, as soon as it comes; false at the end of a whole answer.
    ///
    /// # Errors
    /// When the answer is cut off or is none; nothing comes after it.
    pub async fn next(&mut self, events: &mut Vec<Event>) -> Result<bool, Arc<SendError>> {
        match self {
            Self::Own(telling) => telling.next(events).await.map_err(Arc::new),
            Self::Heard(listening) => listening.next(events).await,
        }
    }
}

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    events: Vec<Event>,
    end: Option<Result<(), Arc<SendError>>>,
}

/// An answer that can be heard from its beginning.
#[derive(Debug, Clone)]
pub(super) struct Source {
    told: watch::Receiver<Told>,
    place: String,
}

/// How a send comes out whose answer comes piece by piece.
pub(super) type Streamed = Result<Answered<Source>, Arc<Refused>>;

/// Who hears an answer.
#[derive(Debug)]
pub struct Listening {
    source: Source,
    heard: usize,
    /// How long it waits, and when that ends; nothing where the send's time is its own.
    time: Option<(Duration, Instant)>,
    /// What is found by who asks the same, as long as somebody listens.
    _send: Option<Sending<Streamed>>,
}

impl Source {
    /// An answer that begins with these pieces, from `place`; and who tells it.
    pub(super) fn begin(events: Vec<Event>, place: &str) -> (Self, Teller) {
        let mut gathering = Gathering::default();
        events.iter().for_each(|event| gathering.take(event));
        let sender = watch::Sender::new(Told { events, end: None });
        let source = Self { told: sender.subscribe(), place: place.to_owned() };
        (source, Teller { sender, gathering })
    }

    /// Hears it from its beginning, for `time` at most. `send` is found as long as it does.
    pub(super) fn hear(
        self,
        time: Option<(Duration, Instant)>,
        send: Option<Sending<Streamed>>,
    ) -> Listening {
        Listening { source: self, heard: 0, time, _send: send }
    }
}

impl Listening {
    async fn next(&mut self, events: &mut Vec<Event>) -> Result<bool, Arc<SendError>> {
        loop {
            {
                let told = self.source.told.borrow_and_update();
                let new = told.events.get(self.heard..).unwrap_or_default();
                if !new.is_empty() {
                    events.extend_from_slice(new);
                    self.heard = told.events.len();
                    return Ok(true);
                }
                match &told.end {
                    Some(Ok(())) => return Ok(false),
                    Some(Err(error)) => return Err(error.clone()),
                    None => {}
                }
            }
            let changed = self.source.told.changed();
            let changed = match self.time {
                None => changed.await,
                Some((within, until)) => match timeout_at(until, changed).await {
                    Ok(changed) => changed,
                    Err(_) => return Err(Arc::new(out_of_time(&self.source.place, within))),
                },
            };
            if changed.is_err() {
                return Err(Arc::new(SendError::Interrupted {
                    destination: self.source.place.clone(),
                    cause: "nobody tells the rest of it".to_owned(),
                    waited: None,
                }));
            }
        }
    }
}

/// The time of one who waited with others ended before theirs did.
pub(super) fn out_of_time(destination: &str, within: Duration) -> SendError {
    let cause = format!("the {} ms that its caller waits are over", within.as_millis());
    SendError::Interrupted { destination: destination.to_owned(), cause, waited: Some(within) }
}

/// Tells an answer to who listens.
pub(super) struct Teller {
    sender: watch::Sender<Told>,
    gathering: Gathering,
}

/// How an answer ended, which is not told yet.
pub(super) struct Ending {
    sender: watch::Sender<Told>,
    end: Result<(), Arc<SendError>>,
}

impl Teller {
    /// Tells the rest as it comes; returns the answer, where it came whole, and what is left to be told.
    /// `None` when nobody listens any more.
    pub(super) async fn tell(self, rest: Option<Box<Telling>>) -> Option<(Option<Answer>, Ending)> {
        let Self { sender, mut gathering } = self;
        let end = match rest {
            Some(mut rest) => tokio::select! {
                end = pass_on(&sender, &mut gathering, &mut rest) => end,
                () = sender.closed() => return None,
            },
            None => Ok(()),
        };
        let answer = gathering.answer().filter(|_| end.is_ok());
        Some((answer, Ending { sender, end }))
    }
}

impl Ending {
    /// Tells how it ended.
    pub(super) fn tell(self) {
        self.sender.send_modify(|told| told.end = Some(self.end));
    }
}

async fn pass_on(
    sender: &watch::Sender<Told>,
    gathering: &mut Gathering,
    rest: &mut Telling,
) -> Result<(), Arc<SendError>> {
    loop {
        let mut events = Vec::new();
        let more = rest.next(&mut events).await;
        events.iter().for_each(|event| gathering.take(event));
        if !events.is_empty() {
            sender.send_modify(|told| told.events.append(&mut events));
        }
        if !more.map_err(Arc::new)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use holdfast_chat::Stop;

    use super::*;

    fn text(words: &str) -> Event {
        Event::Text(words.to_owned())
    }

    async fn heard(listening: &mut Listening) -> (Vec<Event>, bool) {
        let (mut events, mut is_whole) = (Vec::new(), false);
        while let Some(next) = listening.next(&mut events).now_or_never() {
            match next {
                Ok(true) => {}
                Ok(false) => {
                    is_whole = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        (events, is_whole)
    }

    #[tokio::test]
    async fn who_comes_later_hears_all_from_the_beginning() {
        let (source, teller) = Source::begin(vec![text("a")], "near");
        let mut first = source.clone().hear(None, None);
        assert_eq!(heard(&mut first).await, (vec![text("a")], false));
        teller.sender.send_modify(|told| told.events.push(text("b")));
        let mut second = source.hear(None, None);
        assert_eq!(heard(&mut first).await, (vec![text("b")], false));
        assert_eq!(heard(&mut second).await, (vec![text("a"), text("b")], false));
        drop(teller);
        let mut events = Vec::new();
        let error = second.next(&mut events).await.unwrap_err();
        assert_eq!(error.code(), "interrupted", "nobody tells it any more");
    }

    #[tokio::test]
    async fn an_answer_is_whole_with_its_end_and_not_before() {
        for (events, is_whole) in
            [(vec![text("a")], false), (vec![text("a"), Event::Stop(Stop::End)], true)]
        {
            let (source, teller) = Source::begin(events.clone(), "near");
            let mut listening = source.hear(None, None);
            let (answer, ending) = teller.tell(None).await.unwrap();
            assert_eq!(answer.is_some(), is_whole);
            assert_eq!(heard(&mut listening).await, (events.clone(), false), "no end is told");
            ending.tell();
            assert_eq!(heard(&mut listening).await, (Vec::new(), true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_its_own_time() {
        let (source, _teller) = Source::begin(Vec::new(), "near");
        let within = Duration::from_secs(3);
        let mut listening = source.hear(Some((within, Instant::now() + within)), None);
        let error = listening.next(&mut Vec::new()).await.unwrap_err();
        assert!(
            error.to_string().contains("near did not finish its answer: the 3000 ms"),
            "{error}"
        );
    }
}
