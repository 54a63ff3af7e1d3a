//! Files as a reader meets them: what lies at the top, where links lead, what must not be written.

use std::path::Path;

use crate::tree;

/// The folders of the design, and the files that tools expect at the top.
const TOP: [&str; 20] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".gitattributes",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Cross.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "agent",
    "deny.toml",
    "fleet",
    "models",
    "targets",
    "tests",
];

#[test]
fn the_top_holds_the_house_and_nothing_else() {
    for file in tree::files() {
        let top = file.split('/').next().unwrap_or(&file);
        assert!(TOP.contains(&top), "{top} does not belong at the top");
    }
}

/// The targets of `[text](target)`, `src="target"` and `href="target"` outside code.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second part between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            for (at, _) in prose.match_indices(opening) {
                let rest = &prose[at + opening.len()..];
                if let Some(end) = rest.find(closing) {
                    let target = rest[..end].split_whitespace().next().unwrap_or_default();
                    found.push(target.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    for file in tree::files().iter().filter(|file| file.ends_with(".md")) {
        let text = tree::text(file).expect("Markdown is text");
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") || link.starts_with('#') {
                continue;
            }
            let path = link.split('#').next().unwrap_or(&link);
            let target = tree::root().join(folder).join(path);
            assert!(target.exists(), "{file} links to {link}, which is not there");
        }
    }
}

#[test]
fn links_are_found_in_prose_only() {
    let text =
        "see [a](b.md#c \"t\") and ![d](e.png) `[no](x)`\n```\n[no](y)\n```\n<img src=\"f.svg\">";
    assert_eq!(links(text), ["b.md#c", "e.png", "f.svg"]);
}

#[test]
fn no_file_names_a_registry_or_a_machine() {
    // Written in halves, so that this file does not find itself.
    let hosts = ["index.crates", "static.crates", "registry.npm", "files.python", "proxy.golang"]
        .map(|half| half.to_owned())
        .into_iter()
        .zip([".io", ".io", "js.org", "hosted.org", ".org"])
        .map(|(left, right)| left + right)
        .chain(["pypi".to_owned() + ".org"]);
    let paths = ["/wo", "/ro", "/home/r", "/tmp/w"]
        .map(str::to_owned)
        .into_iter()
        .zip(["rk/", "ot/", "oot/", "t/"])
        .map(|(left, right)| left + right);
    let refused: Vec<String> = hosts.chain(paths).collect();
    for file in tree::files() {
        // The lock file is cargo's own text.
        if file == "Cargo.lock" {
            continue;
        }
        let Some(text) = tree::text(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in &refused {
                // A path counts where it begins one, not inside a longer one.
                let found = line.match_indices(word.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !word.starts_with('/')
                        || before.is_none_or(|c| !c.is_alphanumeric() && !"._-}/*".contains(c))
                });
                assert!(!found, "{file}:{} names {word}", number + 1);
            }
        }
    }
}

#[test]
fn both_licences_are_whole() {
    for (file, words) in [
        ("LICENSE-MIT", "THE SOFTWARE IS PROVIDED \"AS IS\""),
        ("LICENSE-APACHE", "END OF TERMS AND CONDITIONS"),
    ] {
        let text = tree::text(file).expect("a licence is text");
        assert!(text.contains(words), "{file} is not the whole licence");
    }
}
