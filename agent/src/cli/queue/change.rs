//! `holdfast-agent queue cancel|retry|drop`: changes single requests.
//!
//! **Invariant:** each request is reported by itself; one that cannot be changed stops no other.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};

use super::place::{Place, Writer, unknown};
use crate::cli::{Exit, Failure};
use crate::operator::Dropped;
use crate::queue::{RequestId, State};

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is taken back.
    Cancel,
    /// It is due at once, as if it had not been tried.
    Retry,
    /// It is removed, with its answer if it has one.
    Drop,
}

/// Which requests are meant.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// These.
    Ids(Vec<RequestId>),
    /// All in one state.
    All(State),
}

/// What became of one request.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) id: RequestId,
    pub(super) change: Change,
    /// What was lost, where something was dropped.
    pub(super) dropped: Option<Dropped>,
    /// Why nothing became of it.
    pub(super) problem: Option<String>,
}

impl Change {
    /// What was done, as a word.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::Drop => "dropped",
        }
    }

    fn apply(self, writer: &Writer, id: RequestId) -> Result<Option<Dropped>, Failure> {
        match self {
            Self::Cancel => writer.cancel(id).map(|()| None),
            Self::Retry => writer.retry(id).map(|()| None),
            Self::Drop => writer.drop_request(id).map(Some),
        }
    }
}

impl Changed {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        let mut row = json!({ "id": self.id, self.change.done(): self.problem.is_none() });
        if let (Some(row), Some(dropped)) = (row.as_object_mut(), &self.dropped) {
            row.insert("was".to_owned(), json!(dropped.was));
            for (name, value) in [("task", &dropped.task), ("model", &dropped.model)] {
                if let Some(value) = value {
                    row.insert(name.to_owned(), json!(value));
                }
            }
            row.insert("class".to_owned(), json!(dropped.class));
        }
        if let (Some(row), Some(problem)) = (row.as_object_mut(), &self.problem) {
            row.insert("problem".to_owned(), json!(problem));
        }
        row
    }
}

/// Changes the requests that are meant.
pub(super) fn change(place: &Place, which: Which, change: Change) -> Result<Vec<Changed>, Failure> {
    let Some(writer) = place.writer()? else {
        let none = match which {
            Which::Ids(ids) => ids,
            Which::All(_) => Vec::new(),
        };
        let row = |id| row(id, change, Err(unknown(id)));
        return Ok(none.into_iter().map(row).collect());
    };
    let ids = match which {
        Which::Ids(ids) => ids,
        Which::All(state) => writer.ids(state)?,
    };
    let rows = ids.into_iter().map(|id| row(id, change, change.apply(&writer, id))).collect();
    writer.close()?;
    Ok(rows)
}

fn row(id: RequestId, change: Change, done: Result<Option<Dropped>, Failure>) -> Changed {
    match done {
        Ok(dropped) => Changed { id, change, dropped, problem: None },
        Err(failure) => Changed { id, change, dropped: None, problem: Some(failure.sentence) },
    }
}

/// Asks on the terminal whether what is meant may be dropped.
///
/// # Errors
/// When the answer is no, or nobody can be asked.
pub(super) fn confirm_drop(which: &Which) -> Result<(), Failure> {
    let what = match which {
        Which::Ids(ids) if ids.len() == 1 => "1 request".to_owned(),
        Which::Ids(ids) => format!("{} requests", ids.len()),
        Which::All(state) => format!("all requests that are {state}"),
    };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let sentence = format!("dropping {what} cannot be undone: say so with --yes");
        return Err(Failure::new(Exit::Usage, sentence));
    }
    eprint!("Drop {what}, with everything that is kept of them? This cannot be undone. [y/N] ");
    let mut answer = String::new();
    let read =
        std::io::stderr().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Found, "nothing was dropped")),
    }
}
