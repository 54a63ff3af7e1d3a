//! Owns the reading of results in their order, page by page from disk.
//!
//! **Invariant:** nothing is kept in memory but the page in hand, however slow the reader; a result that
//! cannot be read is said so in its place, and does not stop those behind it.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::queue::{Queue, QueueError, RequestId};
use crate::reply::{Reply, ReplyBody, reply_of};
use crate::request::TaskName;

/// Results in one page at most.
pub const MAX_PAGE: usize = 1000;
/// Results looked at for one page at most, when only those of one task are wanted.
const MAX_LOOKED_AT: usize = 5000;
/// Rows asked of the index at once.
const ROWS: usize = 100;
/// After the queue changed, so long is waited for more of it before it is looked at.
const GATHER: Duration = Duration::from_millis(10);

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its place in the order of all; numbers grow, with gaps, and never change.
    pub number: u64,
    /// The request.
    pub id: RequestId,
    /// The request's end, or why it cannot be read.
    pub reply: Result<Reply, String>,
}

/// The JSON form of a [`Found`].
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ResultBody<'a> {
    /// As a request is shown, with its number.
    Whole {
        /// The result's number.
        number: u64,
        /// The request and its end.
        #[serde(flatten)]
        reply: ReplyBody<'a>,
    },
    /// Its bytes are damaged on disk.
    Unreadable {
        /// The result's number.
        number: u64,
        /// The request.
        id: String,
        /// `unreadable`.
        state: &'static str,
        /// Why.
        note: &'a str,
    },
}

impl<'a> From<&'a Found> for ResultBody<'a> {
    fn from(found: &'a Found) -> Self {
        let number = found.number;
        match &found.reply {
            Ok(reply) => Self::Whole { number, reply: ReplyBody::from(reply) },
            Err(note) => {
                Self::Unreadable { number, id: found.id.to_string(), state: "unreadable", note }
            }
        }
    }
}

/// Some results, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The results.
    pub found: Vec<Found>,
    /// The next page is behind this number.
    pub last: u64,
    /// The number of the first result behind the one asked for, of whatever task.
    pub first: Option<u64>,
    /// There was nothing more when it was read.
    pub is_end: bool,
}

/// At most `limit` results behind the number `after`, all or those of one task.
///
/// # Errors
/// The queue's.
pub async fn page(
    queue: &Queue,
    after: u64,
    limit: usize,
    task: Option<&TaskName>,
) -> Result<Page, QueueError> {
    let mut page = Page { last: after, ..Page::default() };
    let mut looked_at = 0;
    while page.found.len() < limit && looked_at < MAX_LOOKED_AT {
        let rows = queue.results_after(page.last, ROWS.min(limit)).await?;
        page.is_end = rows.is_empty();
        if page.is_end {
            break;
        }
        looked_at += rows.len();
        for (number, summary) in rows {
            page.first = page.first.or(Some(number));
            if page.found.len() >= limit {
                break;
            }
            page.last = number;
            let id = summary.id;
            let reply = match queue.get(id).await {
                Ok(Some(record)) => reply_of(record).map_err(|error| error.to_string()),
                // Its keep time ended meanwhile.
                Ok(None) => continue,
                Err(error @ QueueError::Damaged { .. }) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            // Whose result an unreadable one is, is not known: everybody hears of it.
            let is_wanted = match (&reply, task) {
                (Ok(reply), Some(task)) => reply.subject.task() == Some(task),
                _ => true,
            };
            if is_wanted {
                page.found.push(Found { number, id, reply });
            }
        }
    }
    Ok(page)
}

/// Waits for results behind a number.
#[derive(Debug)]
pub struct Reader {
    queue: Queue,
    changes: watch::Receiver<u64>,
    after: u64,
    task: Option<TaskName>,
}

impl Reader {
    /// Reads on behind `after`.
    pub fn new(queue: Queue, after: u64, task: Option<TaskName>) -> Self {
        let changes = queue.changes();
        Self { queue, changes, after, task }
    }

    /// The number that the next page is behind.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The next results, at most `limit`, as soon as there are some.
    ///
    /// # Errors
    /// The queue's; [`QueueError::Closed`] when there will be no more.
    pub async fn next(&mut self, limit: usize) -> Result<Page, QueueError> {
        loop {
            self.changes.borrow_and_update();
            let page = page(&self.queue, self.after, limit, self.task.as_ref()).await?;
            // Who stops waiting in between looks at the same results again.
            self.after = page.last;
            if !page.found.is_empty() {
                return Ok(page);
            }
            if page.is_end {
                self.changes.changed().await.map_err(|_closed| QueueError::Closed)?;
                tokio::time::sleep(GATHER).await;
            }
        }
    }
}
