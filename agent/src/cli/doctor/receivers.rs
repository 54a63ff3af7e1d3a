//! Owns what `doctor` says of those who are sent something: destinations and webhooks.
//!
//! **Invariant:** it asks whether they are there, and sends them nothing of a request or a result.

use super::{Finding, REACH_WITHIN};
use crate::audit::Audit;
use crate::cli::nearest::nearest;
use crate::destination::{Credential, Destination};
use crate::escalate::{CredentialError, Hook, ProbeError, credential_fault};
use crate::network::Network;
use crate::request::TaskName;
use crate::results::receiver::Webhook;

/// Nothing is posted: that would be a result.
pub(super) async fn of_webhook(webhook: &Webhook) -> Finding {
    let check = format!("webhook {}", webhook.name);
    let fault = match Hook::new(webhook, Audit::default(), &Network::default()) {
        Ok(hook) => hook.secret_fault().await,
        Err(error) => Some(crate::error_chain(&error)),
    };
    match fault {
        None => {
            Finding::fine(check, format!("its secret is there; zone {}", webhook.receiver.zone))
        }
        Some(fault) => {
            let advice = "no results are sent to it until its url and secret_file can be used";
            Finding::fault(check, fault, advice)
        }
    }
}

/// Whether it answers.
pub(super) async fn of_destination(destination: &Destination) -> Finding {
    let check = format!("destination {}", destination.name);
    match crate::escalate::probe(destination, REACH_WITHIN).await {
        Ok(()) => Finding::fine(check, format!("{} answers", destination.url)),
        Err(error @ ProbeError::Portal { .. }) => {
            let advice =
                "sign in to that network, or check the URL; until then its requests are held";
            Finding::warn(check, crate::error_chain(&error), advice)
        }
        Err(error @ ProbeError::Configured(_)) => {
            let advice = "correct its section: the agent does not start with it";
            Finding::fault(check, crate::error_chain(&error), advice)
        }
        Err(error) => {
            let advice =
                "requests for it are held until it answers; check its URL, and that it runs";
            Finding::warn(check, crate::error_chain(&error), advice)
        }
    }
}

/// A credential that cannot be read. What the environment holds here says little of the agent's.
pub(super) async fn of_credential(destination: &Destination) -> Option<Finding> {
    let fault = credential_fault(destination).await?;
    let check = format!("destination {}, credential", destination.name);
    let found = crate::error_chain(&fault);
    Some(match (&destination.credential, &fault) {
        (Some(Credential::Systemd(name)), CredentialError::Variable { .. }) => {
            let found = format!("{name}, which systemd gives to the agent's service alone");
            Finding::fine(check, found)
        }
        (Some(Credential::Env(_)), _) => {
            let advice = "nothing goes to it without; the agent's environment may be another than \
                          this one, its log says at its start what is missing";
            Finding::warn(check, found, advice)
        }
        _ => Finding::fault(check, found, "nothing goes to it until it can be read"),
    })
}

/// The tasks that one destination names and nothing else here does: they may be its own, or mistyped.
pub(super) fn of_tasks(
    destination: &Destination,
    bundled: &[TaskName],
    all: &[Destination],
) -> Vec<Finding> {
    let others = all.iter().filter(|other| other.name != destination.name);
    let known: Vec<&TaskName> = bundled.iter().chain(others.flat_map(|each| &each.tasks)).collect();
    let own = destination.tasks.iter().filter(|task| !known.contains(task));
    own.map(|task| {
        let check = format!("destination {}, task {task}", destination.name);
        let found = "no bundle here and no other destination does it";
        match nearest(task.as_str(), known.iter().map(|known| known.as_str())) {
            Some(meant) => {
                let advice =
                    format!("if {meant} is meant, correct its tasks: nobody sends it that");
                Finding::warn(check, format!("{found}; is {meant} meant?"), advice)
            }
            None => Finding::fine(check, found),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_credential_that_is_not_there_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, "sk-1\n").unwrap();
        let (there, missing) = (there.display(), dir.path().join("missing"));
        for (credential, want) in [
            (String::new(), None),
            (format!("api_key_file = \"{there}\""), None),
            (
                format!("api_key_file = \"{}\"", missing.display()),
                Some((Health::Fault, "missing cannot be read")),
            ),
            (
                "api_key_env = \"NOT_THERE_XYZ\"".to_owned(),
                Some((
                    Health::Warn,
                    "environment variable NOT_THERE_XYZ does not hold a credential",
                )),
            ),
        ] {
            let toml = format!(
                "[[destination]]\nname = \"x\"\nzone = \"site\"\nprotocol = \"openai\"\n\
                 model = \"m\"\nurl = \"http://127.0.0.1:1\"\n{credential}\n"
            );
            let config = Config::parse("test.toml", &toml, std::iter::empty()).unwrap();
            let found = of_credential(&config.destinations[0]).await;
            let found = found.map(|found| (found.health, found.found));
            match (&found, want) {
                (None, None) => {}
                (Some((health, text)), Some((want, words))) if *health == want => {
                    assert!(text.contains(words), "{text}");
                }
                _ => panic!("{credential}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_task_that_may_be_mistyped_is_noticed() {
        let toml = r#"
            [[destination]]
            name = "site"
            zone = "site"
            url = "http://127.0.0.1:1"
            tasks = ["voice-commands", "voise-commands", "weld-seams", "part-inspction"]
            [[destination]]
            name = "other"
            zone = "site"
            url = "http://127.0.0.1:2"
            tasks = ["part-inspection", "voice-commands"]
        "#;
        let config = Config::parse("test.toml", toml, std::iter::empty()).unwrap();
        let bundled = [TaskName::parse("voice-commands").unwrap()];
        let found = of_tasks(&config.destinations[0], &bundled, &config.destinations);
        let told: Vec<_> = found.iter().map(|found| (found.health, &*found.found)).collect();
        let nobody = "no bundle here and no other destination does it";
        assert_eq!(
            told,
            [
                (Health::Warn, &*format!("{nobody}; is voice-commands meant?")),
                (Health::Fine, nobody),
                (Health::Warn, &*format!("{nobody}; is part-inspection meant?")),
            ]
        );
        assert!(found[0].check.contains("site") && found[0].check.contains("voise-commands"));
        let other = of_tasks(&config.destinations[1], &bundled, &config.destinations);
        assert!(other.iter().all(|found| found.health == Health::Warn), "the good one of the two");
    }
}
