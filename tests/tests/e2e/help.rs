//! What the commands say of themselves.

use std::path::Path;
use std::process::Command;

fn said(args: &[&str]) -> String {
    let output = Command::new(super::program()).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that the help of a command lists.
fn listed(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    // A description that goes on in another line stands further in.
    let lines = list.filter_map(|line| line.strip_prefix("  ").filter(|own| !own.starts_with(' ')));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Follows every command of a program down: each has help, which names it as it is called.
fn follow(path: &mut Vec<String>, seen: &mut Vec<String>) {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = said(&args);
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    let called = format!("holdfast-demo {}", path.join(" "));
    assert!(usage.starts_with(&called), "{called} says that it is {usage:?}");
    seen.push(path[1..].join(" "));
    for name in listed(&help) {
        path.push(name);
        follow(path, seen);
        path.pop();
    }
}

#[test]
fn each_command_names_itself_and_completions_have_them_all() {
    for (role, must) in [
        ("agent", &["models golden", "models load", "runtime rollback", "queue repair"][..]),
        ("fleet", &[]),
    ] {
        let mut seen = Vec::new();
        follow(&mut vec![role.to_owned()], &mut seen);
        for name in must {
            assert!(seen.iter().any(|seen| seen == name), "no {name} among {seen:?}");
        }
        if role == "agent" {
            let completions = said(&["agent", "completions", "bash"]);
            for name in seen.iter().filter(|name| !name.is_empty()) {
                // As bash's completions name them.
                let is_there = ["__", "__subcmd__"].iter().any(|between| {
                    let words = name.replace('-', "__").replace(' ', between);
                    completions.contains(&format!("holdfast__agent{between}{words}"))
                });
                assert!(is_there, "{name} is not in the completions");
            }
        }
    }
}

/// What bash offers behind these words.
fn offered(script: &Path, program: &str, words: &[&str]) -> String {
    let (name, last) = (program.replace('-', "__"), words.len());
    let words = words.join(" ");
    let ask = format!(
        "source \"$0\"; COMP_WORDS=({program} {words}); COMP_CWORD={last}; \
         _{name} {program} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["-c", &ask]).arg(script).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn bash_completes_at_every_depth() {
    let dir = tempfile::tempdir().unwrap();
    for (role, words, want) in [
        ("agent", &["tok"][..], "token"),
        ("agent", &["token", "add", "--cl"], "--class"),
        ("agent", &["token", "add", "--class", "r"], "restricted"),
        ("agent", &["queue", "st"], "stats"),
        ("fleet", &["serve", "--conf"], "--config"),
    ] {
        let script = dir.path().join(role);
        std::fs::write(&script, said(&[role, "completions", "bash"])).unwrap();
        let got = offered(&script, &format!("holdfast-{role}"), words);
        assert_eq!(got, want, "{role} {words:?}");
    }
}
