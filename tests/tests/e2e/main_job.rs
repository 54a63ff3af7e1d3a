//! The main job, as the README's first command runs it.

use std::process::Command;

use holdfast_tests::reference;

#[test]
fn the_demo_shows_all_that_it_promises() {
    let output = Command::new(super::program()).arg("--once").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{errors}");
    for part in [
        "sure enough",
        "answered by site (zone site)",
        "0 bytes of it went over the link",
        "no link to site",
        "The controller sees",
        "held requests have their final answer",
        "online",
        "curl -s",
    ] {
        assert!(shown.contains(part), "\"{part}\" is not in\n{shown}");
    }
}

#[test]
fn the_demo_takes_real_recordings() {
    let Some(folder) = reference::reference("the demo over real recordings") else { return };
    let recordings = folder.join("data/kws_wav");
    let output = Command::new(super::program())
        .args(["--once", "--samples"])
        .arg(recordings)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{errors}");
    assert!(shown.contains("96 asked"), "{shown}");
}

#[test]
fn a_folder_without_samples_is_said_so() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(super::program())
        .args(["--once", "--samples"])
        .arg(empty.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("give --samples another folder"));
}
