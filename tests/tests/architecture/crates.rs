//! Packages: who may depend on whom, and what may come in from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{licence, tree};

/// The arrows of the design, `(from, may know)`.
const ARROWS: [(&str, &[&str]); 8] = [
    (
        "holdfast-agent",
        &[
            "holdfast-chat",
            "holdfast-models",
            "holdfast-queue",
            "holdfast-targets",
            "holdfast-wire",
        ],
    ),
    ("holdfast-chat", &[]),
    ("holdfast-fleet", &["holdfast-models", "holdfast-wire"]),
    ("holdfast-models", &[]),
    ("holdfast-queue", &[]),
    ("holdfast-targets", &[]),
    (
        "holdfast-tests",
        &[
            "holdfast-agent",
            "holdfast-chat",
            "holdfast-fleet",
            "holdfast-models",
            "holdfast-queue",
            "holdfast-targets",
            "holdfast-wire",
        ],
    ),
    ("holdfast-wire", &[]),
];

struct Package {
    name: String,
    version: String,
    licence: String,
    source: Option<String>,
    /// Package ids, by the kinds of dependency: normal, build, dev.
    dependencies: Vec<(String, BTreeSet<String>)>,
}

/// Everything that a build for this machine takes in, by package id.
fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let run = Command::new(cargo)
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", &host])
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(run.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&run.stderr));
    let metadata: Value = serde_json::from_slice(&run.stdout).expect("cargo prints JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut packages: BTreeMap<String, Package> = list(&metadata["packages"])
        .iter()
        .map(|package| {
            let read = Package {
                name: word(&package["name"]),
                version: word(&package["version"]),
                licence: word(&package["license"]),
                source: package["source"].as_str().map(str::to_owned),
                dependencies: Vec::new(),
            };
            (word(&package["id"]), read)
        })
        .collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    // A package that no node names belongs to another platform.
    let built: BTreeSet<String> = nodes.iter().map(|node| word(&node["id"])).collect();
    packages.retain(|id, _| built.contains(id));
    for node in &nodes {
        let found = packages.get_mut(&word(&node["id"])).expect("a node is a package");
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"])
                .iter()
                .map(|kind| kind["kind"].as_str().unwrap_or("normal").to_owned())
                .collect();
            found.dependencies.push((word(&dependency["pkg"]), kinds));
        }
    }
    packages
}

fn deny_toml() -> toml::Table {
    tree::text("deny.toml").expect("deny.toml is text").parse().expect("deny.toml is TOML")
}

fn names(value: &toml::Value) -> Vec<String> {
    let list = value.as_array().expect("a list of names");
    list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn packages_know_only_those_the_design_lets_them() {
    let packages = packages();
    let ours: BTreeMap<&str, &Package> = packages
        .values()
        .filter(|package| package.source.is_none())
        .map(|package| (package.name.as_str(), package))
        .collect();
    let want: Vec<&str> = ARROWS.iter().map(|(from, _)| *from).collect();
    assert_eq!(ours.keys().copied().collect::<Vec<_>>(), want, "the packages of the workspace");
    for (from, may_know) in ARROWS {
        for (id, kinds) in &ours[from].dependencies {
            let to = &packages[id];
            if to.source.is_none() {
                assert!(may_know.contains(&to.name.as_str()), "{from} -> {} ({kinds:?})", to.name);
            }
        }
    }
}

#[test]
fn the_wire_contract_and_conversations_do_no_input_or_output() {
    let packages = packages();
    let is_pure = |p: &Package| ["holdfast-chat", "holdfast-wire"].contains(&p.name.as_str());
    let mut left: Vec<_> = packages.iter().filter(|(_, p)| is_pure(p)).map(|(id, _)| id).collect();
    assert_eq!(left.len(), 2, "they are there");
    let mut seen: BTreeSet<_> = left.iter().copied().collect();
    while let Some(id) = left.pop() {
        for (next, kinds) in &packages[id].dependencies {
            if kinds.contains("normal") && seen.insert(next) {
                left.push(next);
            }
        }
    }
    for id in seen {
        let name = packages[id].name.as_str();
        assert!(
            !["tokio", "mio", "socket2", "rumqttc", "reqwest"].contains(&name),
            "{name} is reached"
        );
    }
}

#[test]
fn libraries_are_known_only_to_their_wrappers() {
    let packages = packages();
    let bans = deny_toml();
    let bans = bans["bans"]["deny"].as_array().expect("bans.deny is a list");
    assert!(bans.len() >= 8, "deny.toml lists the fenced libraries");
    for ban in bans {
        let banned = ban["crate"].as_str().expect("bans.deny.crate is a name");
        let wrappers = ban.get("wrappers").map(names).unwrap_or_default();
        for package in packages.values() {
            let uses = package.dependencies.iter().any(|(id, _)| packages[id].name == banned);
            assert!(!uses || wrappers.contains(&package.name), "{} -> {banned}", package.name);
        }
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_the_one_source() {
    let deny = deny_toml();
    let licences = names(&deny["licenses"]["allow"]);
    let packages = packages();
    let sources: BTreeSet<&String> = packages.values().filter_map(|p| p.source.as_ref()).collect();
    assert_eq!(sources.len(), 1, "one registry and no git: {sources:?}");
    for package in packages.values() {
        assert!(
            licence::allowed(&package.licence, &licences),
            "{} {}: licence {:?} is not allowed in deny.toml",
            package.name,
            package.version,
            package.licence
        );
    }
}

#[test]
fn measured_libraries_stay_at_the_measured_version() {
    let packages = packages();
    for (name, version) in [("sled", "0.34.7"), ("tract-onnx", "0.23.9")] {
        let found: Vec<&str> =
            packages.values().filter(|p| p.name == name).map(|p| p.version.as_str()).collect();
        assert_eq!(found, [version], "{name}");
    }
}
