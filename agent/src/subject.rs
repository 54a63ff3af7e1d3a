//! Owns whom a request asks: a task, or a model by its name.
//!
//! **Invariant:** a name is the caller's own word for it, and says nothing of who will answer.

use crate::request::TaskName;

/// Whom a request asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Whoever does this task.
    Task(TaskName),
    /// What this name of a model means: a route, a destination, or a model that destinations have.
    Model(String),
}

impl Subject {
    /// The task's name, or the model's.
    pub fn name(&self) -> &str {
        match self {
            Self::Task(task) => task.as_str(),
            Self::Model(model) => model,
        }
    }

    /// The task, where it is one.
    pub fn task(&self) -> Option<&TaskName> {
        match self {
            Self::Task(task) => Some(task),
            Self::Model(_) => None,
        }
    }

    /// The model's name, where it is one.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Task(_) => None,
            Self::Model(model) => Some(model),
        }
    }
}
