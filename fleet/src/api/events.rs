//! Changes as server-sent events.
//!
//! ```text
//! event: fleet    everything, at the beginning and whenever a watcher fell behind
//! event: device   one device, whenever it changed
//! event: status   the controller itself, every two seconds
//! ```
//!
//! **Invariant:** a slow watcher costs a bounded amount of memory, and loses nothing that matters: it gets everything
//! anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State as From;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{self, Stream};
use holdfast_wire::id::DeviceId;
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::view::DeviceView;
use super::{Api, list, status_view};

/// Devices in the `fleet` event; whoever wants more asks for the next page.
const MOST: usize = 2000;
const STATUS_EVERY: Duration = Duration::from_secs(2);

struct Watcher {
    api: Api,
    changes: Receiver<DeviceId>,
    status: Interval,
    is_behind: bool,
}

pub(super) async fn stream(
    From(api): From<Api>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = api.state.watch();
    let mut status = interval(STATUS_EVERY);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher { api, changes, status, is_behind: true };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}

impl Watcher {
    /// The next event; `None` when the controller stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::take(&mut self.is_behind) {
                return Some(self.everything());
            }
            tokio::select! {
                () = self.api.cancel.cancelled() => return None,
                _ = self.status.tick() => return Some(event("status", &status_view(&self.api))),
                change = self.changes.recv() => match change {
                    Ok(id) => {
                        if let Some(device) = self.api.state.roster().get(&id) {
                            return Some(event("device", &DeviceView::from(device)));
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.changes = self.changes.resubscribe();
                        self.is_behind = true;
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn everything(&self) -> Event {
        event("fleet", &list(&self.api, None, MOST))
    }
}

fn event(name: &str, content: &impl Serialize) -> Event {
    // Our own types always become JSON, and JSON has no line breaks.
    Event::default().event(name).data(serde_json::to_string(content).unwrap_or_default())
}
