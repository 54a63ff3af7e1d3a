//! Bytes thrown at the readers that stand before everything that comes from outside: so many times in the
//! ordinary tests, longer and led by the code that they reach with `tests/fuzz`.

#[path = "../../../models/tests/models/counted.rs"]
mod counted;

use holdfast_tests::fuzz::drive::drive;
use holdfast_tests::fuzz::targets::TARGETS;

use counted::largest_allocation;

/// A whole number of the environment.
fn said(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: must be a whole number")))
}

fn throw(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    // The same every time, so that a change is what makes a test fail; `tests/fuzz` takes others.
    let seed = said("HOLDFAST_SEED").unwrap_or(1);
    let executions = said("HOLDFAST_FUZZ_EXECUTIONS").unwrap_or(target.executions);
    let report = drive(target, executions, seed, |run| largest_allocation(run));
    println!("FUZZ | {name}, seed {seed}: {report:?}");
    // Changes that leave nothing whole test the first check alone.
    assert!(report.taken > executions / 1000, "{report:?}");
}

#[test]
fn bundles() {
    throw("bundle");
}

#[test]
fn onnx_files() {
    throw("onnx");
}

#[test]
fn graphs_before_tract_sees_them() {
    throw("tract");
}

#[test]
fn recordings() {
    throw("wav");
}

#[test]
fn pictures() {
    throw("image");
}

#[test]
fn numbers() {
    throw("numbers");
}

#[test]
fn requests_over_http() {
    throw("v2-rest");
}

#[test]
fn requests_over_grpc() {
    throw("v2-grpc");
}

#[test]
fn each_target_is_thrown_at() {
    let text = include_str!("main.rs");
    for target in TARGETS {
        assert!(text.contains(&format!("throw(\"{}\")", target.name)), "{}", target.name);
    }
}
