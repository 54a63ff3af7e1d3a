//! `holdfast-agent completions`: what a shell offers behind what was typed.
//!
//! **Invariant:** nothing is offered that the help does not show.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Args;

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = shown(&Args::command());
    clap_complete::generate(shell, &mut command, "holdfast-agent", &mut script);
    // clap_complete 4.6 spells a name with a hyphen in two ways for bash, which meets none of its cases.
    String::from_utf8_lossy(&script).replace("holdfast__subcmd__agent", "holdfast__agent")
}

/// A command without what is hidden in it, which clap_complete offers like the rest.
fn shown(command: &Command) -> Command {
    // clap takes names that live as long as the program, which ends with this.
    let mut shown = Command::new(&*command.get_name().to_owned().leak());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if command.get_version().is_some() {
        shown = shown.version(env!("CARGO_PKG_VERSION"));
    }
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.args(args).subcommands(commands.map(self::shown))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn no_shell_offers_what_is_hidden() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for hidden in ["child-within", "probe"] {
                assert!(!script.contains(hidden), "{shell} offers {hidden}");
            }
            for offered in ["token", "revoke", "--json", "log-json", "config"] {
                let offered =
                    if *shell == Shell::Fish { offered.trim_matches('-') } else { offered };
                assert!(script.contains(offered), "{shell} does not offer {offered}");
            }
        }
    }
}
