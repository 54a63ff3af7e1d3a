//! Code: where a library may be named, which modules decide without doing, names and sizes.

use std::collections::BTreeSet;

use crate::{lexer, tree};

/// One module of one package may name the library: `(word, package, module)`.
const FENCES: [(&str, &str, &str); 19] = [
    ("rumqttc", "agent/src/", "link"),
    ("sled", "agent/queue/src/", "index"),
    ("reqwest", "agent/src/", "escalate"),
    ("RsaKeyPair", "agent/src/", "escalate/tokens"),
    ("aead", "agent/src/", "seal"),
    ("hmac", "agent/chat/src/", "sigv4"),
    ("sha2", "agent/chat/src/", "sigv4"),
    // The library is called as a method of every iterator is.
    ("ZipArchive", "agent/src/", "install/archive"),
    ("tar", "agent/src/", "install/archive"),
    ("tract_onnx", "models/src/", "runtime/tract"),
    ("hound", "models/src/", "audio"),
    ("rubato", "models/src/", "audio"),
    ("realfft", "models/src/", "audio"),
    ("fast_image_resize", "models/src/", "image"),
    ("ort", "models/src/", "runtime/onnx_runtime"),
    ("prost", "agent/src/", "oip/messages"),
    ("tonic", "agent/src/", "oip/grpc"),
    ("base64", "models/src/", "front"),
    ("serde_json", "models/src/", "front"),
];

/// In the controller the modules are free, but there is one for each library.
const FLEET_LIBRARIES: [&str; 4] = ["rumqttc", "rumqttd", "sqlx", "reqwest"];

/// Modules that decide take everything as an argument.
const PURE: [&str; 4] = ["agent/chat/src/", "agent/src/route", "fleet/wire/src/", "targets/src/"];
const IMPURE_WORDS: [&str; 10] =
    ["tokio", "fs", "net", "env", "process", "thread", "Instant", "SystemTime", "async", "await"];

/// Files longer than 600 lines, each with its reason.
const LONG: [(&str, &str); 0] = [];

fn is_module(file: &str, package: &str, module: &str) -> bool {
    let Some(rest) = file.strip_prefix(package).and_then(|f| f.strip_prefix(module)) else {
        return false;
    };
    rest == ".rs" || rest.starts_with('/')
}

#[test]
fn each_library_is_named_in_one_module() {
    for (library, package, module) in FENCES {
        for (file, text) in tree::rust(&[package]) {
            let code = lexer::code(&text);
            let named = lexer::words(&code).find(|&(_, word)| word == library);
            if let Some((line, _)) = named {
                assert!(
                    is_module(&file, package, module),
                    "{file}:{line} names {library}: only {package}{module} may"
                );
            }
        }
    }
}

#[test]
fn the_controller_names_each_library_in_one_module() {
    for library in FLEET_LIBRARIES {
        let mut modules = BTreeSet::new();
        for (file, text) in tree::rust(&["fleet/src/"]) {
            let code = lexer::code(&text);
            if lexer::words(&code).any(|(_, word)| word == library) {
                let inner = file.trim_start_matches("fleet/src/").trim_end_matches(".rs");
                modules.insert(inner.split('/').next().unwrap_or(inner).to_owned());
            }
        }
        assert!(modules.len() <= 1, "{library} is named in several modules: {modules:?}");
    }
}

#[test]
fn modules_that_decide_do_nothing() {
    for (file, text) in tree::rust(&PURE) {
        let code = lexer::code(&text);
        // Tests may read what they like.
        let deciding = code.split("#[cfg(test)]").next().unwrap_or(&code);
        if file.contains("/tests") {
            continue;
        }
        for (line, word) in lexer::words(deciding) {
            assert!(!IMPURE_WORDS.contains(&word), "{file}:{line} names {word}");
        }
    }
}

#[test]
fn no_module_is_named_for_having_no_subject() {
    const NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];
    for file in tree::files() {
        let code = file.ends_with(".rs") || file.ends_with(".py");
        for part in file.split('/').map(|part| part.split('.').next().unwrap_or(part)) {
            assert!(!code || !NAMES.contains(&part), "{file}: a module is named for what it owns");
        }
    }
    for (file, text) in tree::rust(&[""]) {
        let code = lexer::code(&text);
        let words: Vec<(usize, &str)> = lexer::words(&code).collect();
        for pair in words.windows(2) {
            if let [(line, "mod"), (_, name)] = pair {
                assert!(!NAMES.contains(name), "{file}:{line}: mod {name}");
            }
        }
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    for file in tree::files() {
        let Some(text) = tree::text(&file) else { continue };
        let code = [".rs", ".py", ".sh", ".js", ".css", ".html"].iter().any(|e| file.ends_with(e))
            || text.starts_with("#!");
        let lines = text.lines().count();
        let reason = LONG.iter().find(|(long, _)| *long == file);
        assert!(!code || lines <= 600 || reason.is_some(), "{file} has {lines} lines: at most 600");
    }
}

#[test]
fn an_allowed_lint_says_why() {
    for (file, text) in tree::rust(&[""]) {
        let code = lexer::code(&text);
        for opening in ["[allow(", "[expect("] {
            for (at, _) in code.match_indices(opening) {
                let rest = &code[at..];
                let attribute = &rest[..rest.find(")]").unwrap_or(rest.len())];
                let line = code[..at].lines().count();
                assert!(attribute.contains("reason"), "{file}:{line}: {attribute} has no reason");
            }
        }
    }
}

#[test]
fn every_module_says_what_it_owns() {
    for (file, text) in tree::rust(&["agent/", "fleet/", "models/src/", "targets/", "tests/"]) {
        // A module of tests says it in the names of its tests.
        let tests = file.split('/').any(|part| part.trim_end_matches(".rs") == "tests")
            && file.contains("/src/");
        assert!(tests || text.starts_with("//!"), "{file} does not open with what it owns (//! …)");
    }
}

#[test]
fn every_metric_says_what_it_is() {
    let (described, used): (Vec<_>, Vec<_>) =
        tree::rust(&["agent/src/"]).into_iter().partition(|(file, _)| file.ends_with("/gauges.rs"));
    let (_, described) = described.first().expect("the descriptions");
    let mut count = 0;
    for (file, text) in used.iter().chain([&("agent/src/gauges.rs".to_owned(), described.clone())])
    {
        for kind in [" counter!(", "::counter!(", " gauge!(", "::gauge!(", "::histogram!("] {
            for (at, _) in text.match_indices(kind) {
                let name = text[at..].split('"').nth(1).expect("a name");
                let is_described = described.contains(&format!("    (\"{name}\", "));
                assert!(is_described, "{file}: {name} is not described in gauges.rs");
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} metrics are found");
}
