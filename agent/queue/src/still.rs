//! A paused clock goes on by itself whenever all tasks wait, also for the writer's thread. This holds it.

use std::sync::mpsc;

/// While there is one, tokio's paused clock stands still: a blocking task is under way.
pub(super) struct Still(#[allow(dead_code, reason = "its end is the message")] mpsc::Sender<()>);

impl Still {
    pub(super) fn hold() -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || receiver.recv().is_err()));
        Self(sender)
    }
}

impl super::Queue {
    /// Lets tokio's paused clock stand still while the writer works.
    #[must_use]
    pub fn holding_time(self) -> Self {
        Self { holds_time: true, ..self }
    }
}
