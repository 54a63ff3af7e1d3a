//! Owns what a caller may do, and the refusals.
//!
//! Pure. **Invariant:** a grant that lists something allows that and nothing else of its kind; who may
//! not operate the agent cannot list what others asked.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::request::DataClass;

/// What the holder of a token may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Tasks and models that it may ask; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Data classes that it may put on a request; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<DataClass>,
    /// Whether it may operate the agent: the queue, everybody's results, loading of models.
    #[serde(default)]
    pub admin: bool,
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_min: Option<u32>,
    /// Requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
}

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// No token, and one is needed.
    #[error(
        "a token is needed: send `Authorization: Bearer TOKEN`; `holdfast-agent token add NAME` makes \
         one"
    )]
    NoToken,
    /// A token that is not known: never was, or was revoked.
    #[error(
        "the token is not known here, or was revoked; `holdfast-agent token ls` lists those that are"
    )]
    Unknown,
    /// A web page of somebody else's, where no token is needed.
    #[error(
        "this was sent for a web page of another site, or under a name that this device is not known by: \
         name it in api.hosts, or let callers show tokens with api.require_token = true"
    )]
    Page,
    /// A token whose time is over.
    #[error("the token \"{name}\" has expired; `holdfast-agent token add` makes a new one")]
    Expired {
        /// Its name.
        name: String,
    },
    /// The tokens cannot be read, so nobody can be told from anybody.
    #[error("the tokens cannot be read: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
    /// A task or model that it was not made for.
    #[error("the token \"{name}\" is not for \"{task}\"; it is for {allowed}")]
    Task {
        /// The token's name.
        name: String,
        /// The task or model.
        task: String,
        /// Those that it is for.
        allowed: String,
    },
    /// A class that it may not put on data.
    #[error("the token \"{name}\" may not label data {class}; it may say {allowed}")]
    Class {
        /// The token's name.
        name: String,
        /// The class.
        class: DataClass,
        /// Those that it may say.
        allowed: String,
    },
    /// Operating the agent.
    #[error("the token \"{name}\" may not operate the agent; one made with --admin may")]
    Admin {
        /// The token's name.
        name: String,
    },
    /// Too many requests in a minute.
    #[error(
        "the token \"{name}\" may ask {per_min} times a minute; come back in {retry_after_s} s"
    )]
    TooFast {
        /// The token's name.
        name: String,
        /// Its limit.
        per_min: u32,
        /// Seconds until it has a request again.
        retry_after_s: u64,
    },
    /// Too many requests at once.
    #[error("the token \"{name}\" may have {concurrent} requests under way at once, and has")]
    TooMany {
        /// The token's name.
        name: String,
        /// Its limit.
        concurrent: u32,
    },
}

impl Grant {
    /// Everything, as where no token is asked for.
    pub fn all() -> Self {
        Self { admin: true, ..Self::default() }
    }

    /// Whether the holder `name` may ask this task or model.
    ///
    /// # Errors
    /// [`Denied::Task`]
    pub fn may_ask(&self, name: &str, task: &str) -> Result<(), Denied> {
        if self.tasks.is_empty() || self.tasks.iter().any(|allowed| allowed == task) {
            return Ok(());
        }
        let task = task.chars().take(64).collect();
        Err(Denied::Task { name: name.to_owned(), task, allowed: self.tasks.join(", ") })
    }

    /// Whether the holder `name` may label data so.
    ///
    /// # Errors
    /// [`Denied::Class`]
    pub fn may_label(&self, name: &str, class: DataClass) -> Result<(), Denied> {
        if self.classes.is_empty() || self.classes.contains(&class) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.classes.iter().map(|class| class.as_str()).collect();
        Err(Denied::Class { name: name.to_owned(), class, allowed: allowed.join(", ") })
    }
}

/// What a path asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: whether the agent lives is nobody's secret.
    Nothing,
    /// A token.
    Token,
    /// A token of an operator.
    Admin,
}

/// What a route, by its pattern, asks of its caller. What has no route asks for a token too: who has
/// none is not told what there is.
pub(crate) fn need(route: Option<&str>) -> Need {
    const OPEN: [&str; 4] = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"];
    /// Beginnings of what shows or changes what others asked, or what the agent does.
    const OPERATED: [&str; 6] = [
        "/v1/queue",
        "/v1/results",
        "/v1/takers",
        "/v1/network",
        "/v2/repository/models/",
        "/metrics",
    ];
    let Some(route) = route else { return Need::Token };
    if OPEN.contains(&route) {
        return Need::Nothing;
    }
    let is_of_one = route.starts_with("/v1/requests/{id}/");
    let is_of_all = route == "/v1/requests";
    let is_event = route == "/v1/requests/{id}/events";
    let is_operated = OPERATED.iter().any(|beginning| route.starts_with(beginning));
    if is_operated || is_of_all || (is_of_one && !is_event) { Need::Admin } else { Need::Token }
}

/// The task or model that a path names.
pub(crate) fn named(path: &str) -> Option<&str> {
    let mut segments = path.split('/').skip(1);
    match (segments.next()?, segments.next()?) {
        ("v1", "tasks") | ("v2", "models") => segments.next().filter(|name| !name.is_empty()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_is_in_it() {
        let all = Grant::default();
        assert_eq!(
            (all.may_ask("n", "voice"), all.may_label("n", DataClass::Public)),
            (Ok(()), Ok(()))
        );
        let some = Grant {
            tasks: vec!["voice".into()],
            classes: vec![DataClass::Restricted, DataClass::Internal],
            ..Grant::default()
        };
        assert_eq!(some.may_ask("n", "voice"), Ok(()));
        assert!(matches!(some.may_ask("n", "voic"), Err(Denied::Task { .. })));
        assert_eq!(some.may_label("n", DataClass::Restricted), Ok(()));
        let told = some.may_label("n", DataClass::Public).unwrap_err().to_string();
        assert!(told.contains("restricted, internal"), "{told}");
    }

    #[test]
    fn what_is_others_is_an_operators() {
        for (route, want) in [
            ("/healthz", Need::Nothing),
            ("/v2/health/ready", Need::Nothing),
            ("/v1/tasks", Need::Token),
            ("/v1/tasks/{task}", Need::Token),
            ("/v1/requests/{id}", Need::Token),
            ("/v1/requests/{id}/events", Need::Token),
            ("/v1/requests/{id}/retry", Need::Admin),
            ("/v1/requests/{id}/record", Need::Admin),
            ("/v1/requests", Need::Admin),
            ("/v1/queue", Need::Admin),
            ("/v1/queue/records", Need::Admin),
            ("/v1/network", Need::Admin),
            ("/v1/results", Need::Admin),
            ("/v1/takers/{name}", Need::Admin),
            ("/v2/models/{model}/infer", Need::Token),
            ("/v2/repository/index", Need::Token),
            ("/v2/repository/models/{model}/unload", Need::Admin),
            ("/metrics", Need::Admin),
            ("/openapi.json", Need::Token),
        ] {
            assert_eq!(need(Some(route)), want, "{route}");
        }
        assert_eq!(need(None), Need::Token);
    }

    #[test]
    fn the_task_is_read_off_the_path() {
        for (path, want) in [
            ("/v1/tasks/voice", Some("voice")),
            ("/v2/models/net/versions/1/infer", Some("net")),
            ("/v1/tasks", None),
            ("/v1/tasks/", None),
            ("/v1/requests/1", None),
            ("/", None),
        ] {
            assert_eq!(named(path), want, "{path}");
        }
    }
}
