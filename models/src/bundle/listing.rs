//! The `[[file]]` of one file in the text of a `bundle.toml`, brought up to date.
//!
//! **Invariant:** nothing else in the text changes: what a person wrote there, comments and order, stays.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// The text of a `bundle.toml` that lists the file `path` with these bytes; at its end, where it was not
/// listed. `None` where it is listed in a way that this does not change, such as in one line.
pub fn relisted(manifest: &str, path: &str, bytes: &[u8]) -> Option<String> {
    let size = format!("bytes = {}", bytes.len());
    let hash = format!("sha256 = \"{}\"", hex::encode(Sha256::digest(bytes)));
    let table: toml::Table = manifest.parse().ok()?;
    let listed = table.get("file").and_then(toml::Value::as_array).into_iter().flatten();
    if !listed.clone().any(|file| of_path(file.as_table(), path)) {
        let gap = if manifest.ends_with('\n') { "" } else { "\n" };
        let path = toml::Value::String(path.to_owned());
        return Some(format!("{manifest}{gap}\n[[file]]\npath = {path}\n{size}\n{hash}\n"));
    }
    let body = bodies(manifest).into_iter().find(|body| {
        let table = manifest[body.clone()].parse::<toml::Table>().ok();
        of_path(table.as_ref(), path)
    })?;
    let mut lines = Vec::new();
    for line in manifest[body.clone()].split_inclusive('\n') {
        let key = line.split('=').next().unwrap_or_default().trim();
        let end = if line.ends_with('\n') { "\n" } else { "" };
        lines.push(match key {
            "bytes" => format!("{size}{end}"),
            "sha256" => format!("{hash}{end}"),
            _ => line.to_owned(),
        });
    }
    Some(format!("{}{}{}", &manifest[..body.start], lines.concat(), &manifest[body.end..]))
}

fn of_path(file: Option<&toml::Table>, path: &str) -> bool {
    file.and_then(|file| file.get("path")?.as_str()) == Some(path)
}

/// What lies between each `[[file]]` and the next header.
fn bodies(manifest: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let (mut at, mut is_in) = (0, false);
    for line in manifest.split_inclusive('\n') {
        let begin = at;
        at += line.len();
        if line.trim_start().starts_with('[') {
            is_in = line.trim_start().starts_with("[[file]]");
            if is_in {
                found.push(at..at);
            }
        } else if let Some(last) = found.last_mut().filter(|last| is_in && last.end == begin) {
            last.end = at;
        }
    }
    found
}
