//! Owns an answer that comes piece by piece and that several may hear: whoever comes later hears what was
//! told already, and then goes on with the others.
//!
//! Up to a bound it is taken from its destination as it comes. Beyond that nobody can join it, it is not
//! kept, and it is taken as its slowest listener takes it.
//!
//! **Invariant:** all hear the same pieces in the same order, and the same end; without a listener the call
//! to the destination ends; what is in memory of it is the bound and what comes in one go at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_chat::{Answer, Event, Gathering};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::kinds::{Listing, Sending};
use crate::escalate::{SendError, Telling};

/// Bytes of an answer that can be heard from its beginning, and kept.
const MOST: usize = 4 << 20;

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
    /// The last of it; all, up to the bound.
    events: Vec<Event>,
    /// So many were before these.
    gone: usize,
    end: Option<Result<(), Arc<SendError>>>,
}

/// An answer that can be heard from its beginning.
#[derive(Debug, Clone)]
pub(super) struct Source {
    told: watch::Receiver<Told>,
    listeners: Arc<Listeners>,
    place: String,
}

/// Who listens, and how much each has heard.
#[derive(Debug, Default)]
struct Listeners {
    heard: Mutex<Heard>,
    /// Somebody heard more, or listens no more.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    by_number: HashMap<u64, usize>,
    next: u64,
}

impl Listeners {
    fn add(&self) -> u64 {
        let mut heard = self.lock();
        let number = heard.next;
        heard.next += 1;
        heard.by_number.insert(number, 0);
        number
    }

    fn set(&self, number: u64, pieces: usize) {
        self.lock().by_number.insert(number, pieces);
        self.moved.notify_one();
    }

    fn remove(&self, number: u64) {
        self.lock().by_number.remove(&number);
        self.moved.notify_one();
    }

    /// Waits until somebody listens, and all who do have heard so much.
    async fn have_heard(&self, pieces: usize) {
        loop {
            let (is_any, all) = {
                let heard = self.lock();
                let mut each = heard.by_number.values();
                (!heard.by_number.is_empty(), each.all(|heard| *heard >= pieces))
            };
            if is_any && all {
                return;
            }
            self.moved.notified().await;
        }
    }

    /// What a panicked holder left are plain numbers.
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who hears an answer.
#[derive(Debug)]
pub struct Listening {
    source: Source,
    number: u64,
    heard: usize,
    /// How long it waits, and when that ends; nothing where the send's time is its own.
    time: Option<(Duration, Instant)>,
    /// What is found by who asks the same, as long as somebody listens.
    _send: Option<Sending<Answer>>,
}

impl Source {
    /// An answer that begins with these pieces, from `place`; and who tells it.
    pub(super) fn begin(
        events: Vec<Event>,
        place: &str,
        listed: Option<Listing<Answer>>,
    ) -> (Self, Teller) {
        let bytes = events.iter().map(bytes_of).sum();
        let sender = watch::Sender::new(Told { events, gone: 0, end: None });
        let (told, listeners) = (sender.subscribe(), Arc::<Listeners>::default());
        let source = Self { told, listeners: listeners.clone(), place: place.to_owned() };
        let mut teller = Teller { sender, listeners, bytes: Some(0), listed };
        teller.count(bytes);
        (source, teller)
    }

    /// Hears it from its beginning, for `time` at most. `send` is found as long as it does.
    pub(super) fn hear(
        self,
        time: Option<(Duration, Instant)>,
        send: Option<Sending<Answer>>,
    ) -> Listening {
        let number = self.listeners.add();
        Listening { source: self, number, heard: 0, time, _send: send }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.source.listeners.remove(self.number);
    }
}

impl Listening {
    /// All of it, in one piece.
    pub(super) async fn all(mut self) -> Result<Answer, Arc<SendError>> {
        let (mut gathering, mut events) = (Gathering::default(), Vec::new());
        while self.next(&mut events).await? {
            events.drain(..).for_each(|event| gathering.take(&event));
        }
        gathering.answer().ok_or_else(|| Arc::new(broken(&self.source.place, "it has no end")))
    }

    async fn next(&mut self, events: &mut Vec<Event>) -> Result<bool, Arc<SendError>> {
        loop {
            {
                let told = self.source.told.borrow_and_update();
                let Some(heard) = self.heard.checked_sub(told.gone) else {
                    return Err(Arc::new(broken(&self.source.place, "its beginning is over")));
                };
                let new = told.events.get(heard..).unwrap_or_default();
                if !new.is_empty() {
                    events.extend_from_slice(new);
                    self.heard += new.len();
                    self.source.listeners.set(self.number, self.heard);
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
                return Err(Arc::new(broken(&self.source.place, "nobody tells the rest of it")));
            }
        }
    }
}

pub(super) fn broken(destination: &str, cause: &str) -> SendError {
    let (destination, cause) = (destination.to_owned(), cause.to_owned());
    SendError::Interrupted { destination, cause, waited: None }
}

/// The time of one who waited with others ended before theirs did.
fn out_of_time(destination: &str, within: Duration) -> SendError {
    let cause = format!("the {} ms that its caller waits are over", within.as_millis());
    SendError::Interrupted { destination: destination.to_owned(), cause, waited: Some(within) }
}

/// Tells an answer to who listens.
pub(super) struct Teller {
    sender: watch::Sender<Told>,
    listeners: Arc<Listeners>,
    /// That were told; `None` beyond the bound.
    bytes: Option<usize>,
    /// So that it is found by who may join it.
    listed: Option<Listing<Answer>>,
}

/// How an answer ended, which is not told yet.
pub(super) struct Ending {
    teller: Teller,
    end: Result<(), Arc<SendError>>,
}

impl Teller {
    /// Tells the rest as it comes; returns what is left to be told. `None` when nobody listens any more.
    pub(super) async fn tell(mut self, rest: Option<Box<Telling>>) -> Option<Ending> {
        let sender = self.sender.clone();
        let end = match rest {
            Some(mut rest) => tokio::select! {
                end = self.pass_on(&mut rest) => end,
                () = sender.closed() => return None,
            },
            None => Ok(()),
        };
        Some(Ending { teller: self, end })
    }

    async fn pass_on(&mut self, rest: &mut Telling) -> Result<(), Arc<SendError>> {
        loop {
            let mut events = Vec::new();
            let more = rest.next(&mut events).await;
            self.say(events).await;
            if !more.map_err(Arc::new)? {
                return Ok(());
            }
        }
    }

    /// Tells these; beyond the bound when all have heard what was told before.
    async fn say(&mut self, mut events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let told = self.bytes.is_none().then(|| {
            let told = self.sender.borrow();
            told.gone + told.events.len()
        });
        if let Some(told) = told {
            self.listeners.have_heard(told).await;
        }
        self.count(events.iter().map(bytes_of).sum());
        self.sender.send_modify(|all| match told {
            Some(told) => (all.gone, all.events) = (told, events),
            None => all.events.append(&mut events),
        });
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.map(|all| all.saturating_add(bytes)).filter(|all| *all <= MOST);
        if self.bytes.is_none() {
            self.listed = None;
        }
    }
}

impl Ending {
    /// The answer, where it came whole and is not beyond the bound.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.teller.bytes.filter(|_| self.end.is_ok())?;
        let mut gathering = Gathering::default();
        self.teller.sender.borrow().events.iter().for_each(|event| gathering.take(event));
        gathering.answer()
    }

    /// Tells how it ended; by then it is not found any more, so that who asks again does not hear of that end.
    pub(super) fn tell(self) {
        let Self { teller: Teller { sender, listed, .. }, end } = self;
        drop(listed);
        sender.send_modify(|told| told.end = Some(end));
    }
}

/// What a piece takes in memory, about.
fn bytes_of(event: &Event) -> usize {
    let text = match event {
        Event::Model(text)
        | Event::Text(text)
        | Event::Reasoning(text)
        | Event::Sealed(text)
        | Event::Redacted(text)
        | Event::Arguments { text, .. } => text.len(),
        Event::Call { id, name, signature, .. } => {
            id.len() + name.len() + signature.as_ref().map_or(0, String::len)
        }
        Event::Usage(_) | Event::Stop(_) => 0,
    };
    text + size_of::<Event>()
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
        let (source, teller) = Source::begin(vec![text("a")], "near", None);
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
            let (source, teller) = Source::begin(events.clone(), "near", None);
            let mut listening = source.hear(None, None);
            let ending = teller.tell(None).await.unwrap();
            assert_eq!(ending.answer().is_some(), is_whole);
            assert_eq!(heard(&mut listening).await, (events.clone(), false), "no end is told");
            ending.tell();
            assert_eq!(heard(&mut listening).await, (Vec::new(), true));
        }
    }

    #[tokio::test]
    async fn beyond_its_bound_it_goes_as_its_slowest_listener_takes_it() {
        let words = "x".repeat(MOST / 2);
        let (source, mut teller) = Source::begin(vec![text("a")], "near", None);
        let [mut fast, mut slow] = [(); 2].map(|()| source.clone().hear(None, None));
        for _ in 0..2 {
            assert!(teller.say(vec![text(&words)]).now_or_never().is_some(), "within the bound");
        }
        assert!(teller.bytes.is_none(), "and now beyond it");
        let mut late = source.clone().hear(None, None);
        assert_eq!(heard(&mut fast).await.0.len(), 3);
        assert_eq!(heard(&mut late).await.0.len(), 3, "all of it is there still");
        {
            let mut saying = Box::pin(teller.say(vec![text("b")]));
            assert!((&mut saying).now_or_never().is_none(), "one has not heard it");
            assert_eq!(heard(&mut slow).await.0.len(), 3);
            assert!(saying.now_or_never().is_some());
        }
        for listening in [&mut fast, &mut slow] {
            assert_eq!(heard(listening).await.0, [text("b")]);
        }
        {
            let mut saying = Box::pin(teller.say(vec![text("c")]));
            assert!((&mut saying).now_or_never().is_none(), "one has not heard it");
            drop(late);
            assert!(saying.now_or_never().is_some(), "and listens no more");
        }
        assert_eq!(teller.sender.borrow().events, [text("c")], "what all have heard is gone");
        let error = source.hear(None, None).next(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("its beginning is over"), "{error}");
        let ending = Ending { teller, end: Ok(()) };
        assert_eq!(ending.answer(), None, "what is too long is not kept");
        ending.tell();
        assert_eq!(heard(&mut slow).await, (vec![text("c")], true));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_its_own_time() {
        let (source, _teller) = Source::begin(Vec::new(), "near", None);
        let within = Duration::from_secs(3);
        let mut listening = source.hear(Some((within, Instant::now() + within)), None);
        let error = listening.next(&mut Vec::new()).await.unwrap_err();
        assert!(
            error.to_string().contains("near did not finish its answer: the 3000 ms"),
            "{error}"
        );
    }
}
