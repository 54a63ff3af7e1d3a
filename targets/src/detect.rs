//! Which of the known boards this is.
//!
//! **Invariant:** detection always gives a profile, and the same facts always give the same one.

use std::sync::LazyLock;

use crate::profile::{Arch, Profile};

/// The profile of last resort is the first; the generic ones come before the boards.
const FILES: [(&str, &str); 9] = [
    ("generic.toml", include_str!("../boards/generic.toml")),
    ("generic-x86_64.toml", include_str!("../boards/generic-x86_64.toml")),
    ("generic-aarch64.toml", include_str!("../boards/generic-aarch64.toml")),
    ("generic-armv7.toml", include_str!("../boards/generic-armv7.toml")),
    ("raspberry-pi-3.toml", include_str!("../boards/raspberry-pi-3.toml")),
    ("raspberry-pi-4.toml", include_str!("../boards/raspberry-pi-4.toml")),
    ("raspberry-pi-5.toml", include_str!("../boards/raspberry-pi-5.toml")),
    ("jetson-nano.toml", include_str!("../boards/jetson-nano.toml")),
    ("jetson-orin-nano.toml", include_str!("../boards/jetson-orin-nano.toml")),
];

static PROFILES: LazyLock<[Profile; FILES.len()]> = LazyLock::new(|| {
    FILES.map(|(file, text)| Profile::parse(file, text).expect("a test parses every embedded file"))
});

/// What is known of the machine this runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The processor as `std::env::consts::ARCH` names it.
    pub arch: String,
    /// The text of `/proc/device-tree/model`, where there is one; its closing NUL does no harm.
    pub device_tree_model: Option<String>,
}

/// Every board that this build knows.
pub fn profiles() -> &'static [Profile] {
    &*PROFILES
}

/// The profile that fits: the board whose model text matches most characters, else the generic
/// profile of the processor, else the profile of last resort.
pub fn detect(facts: &Facts) -> &'static Profile {
    let arch = Arch::parse(&facts.arch);
    let model = facts.device_tree_model.as_deref().unwrap_or_default();
    let [last_resort, known @ ..] = &*PROFILES;
    known
        .iter()
        .filter(|profile| profile.runs(arch))
        .filter_map(|profile| Some((matched(profile, model)?, profile)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map_or(last_resort, |(_, profile)| profile)
}

/// How many characters of the model text tell this board: none for a generic profile, `None` when
/// it is another board.
fn matched(profile: &Profile, model: &str) -> Option<usize> {
    let parts = profile.device_tree_models();
    if parts.is_empty() {
        return Some(0);
    }
    parts.iter().filter(|part| model.contains(part.as_str())).map(String::len).max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_embedded_and_named_after_its_board() {
        for (file, text) in FILES {
            let profile = Profile::parse(file, text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(format!("{}.toml", profile.name()), file);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let embedded: BTreeSet<String> = FILES.map(|(file, _)| file.to_owned()).into();
        assert_eq!(on_disk, embedded);
    }

    #[test]
    fn boards_are_told_by_their_model() {
        let cases = [
            ("aarch64", Some("Raspberry Pi 3 Model B Plus Rev 1.3\0"), "raspberry-pi-3"),
            ("arm", Some("Raspberry Pi 3 Model B Rev 1.2"), "raspberry-pi-3"),
            ("aarch64", Some("Raspberry Pi 4 Model B Rev 1.5"), "raspberry-pi-4"),
            ("aarch64", Some("Raspberry Pi 400 Rev 1.0"), "raspberry-pi-4"),
            ("aarch64", Some("Raspberry Pi Compute Module 4 Rev 1.1"), "raspberry-pi-4"),
            ("aarch64", Some("Raspberry Pi 5 Model B Rev 1.0\0"), "raspberry-pi-5"),
            ("aarch64", Some("NVIDIA Jetson Nano Developer Kit"), "jetson-nano"),
            ("aarch64", Some("NVIDIA Orin Nano Developer Kit"), "jetson-orin-nano"),
            ("aarch64", Some("NVIDIA Jetson Orin Nano Engineering Reference"), "jetson-orin-nano"),
            ("aarch64", Some("Radxa ROCK 5B"), "generic-aarch64"),
            ("aarch64", None, "generic-aarch64"),
            ("arm", Some("Raspberry Pi Zero W"), "generic-armv7"),
            ("arm", Some("NVIDIA Jetson Nano Developer Kit"), "generic-armv7"),
            ("x86_64", Some(""), "generic-x86_64"),
            ("x86_64", None, "generic-x86_64"),
            ("riscv64", Some("Raspberry Pi 4"), "generic"),
            ("", None, "generic"),
        ];
        for (arch, model, want) in cases {
            let facts = Facts { arch: arch.into(), device_tree_model: model.map(Into::into) };
            assert_eq!(detect(&facts).name(), want, "{facts:?}");
        }
    }

    #[test]
    fn every_board_has_an_example_model_that_finds_it() {
        for profile in profiles() {
            for part in profile.device_tree_models() {
                let facts = Facts { arch: "aarch64".into(), device_tree_model: Some(part.clone()) };
                assert_eq!(detect(&facts).name(), profile.name(), "{part}");
            }
        }
    }

    #[test]
    fn this_build_has_a_profile_of_its_own_processor() {
        let facts = Facts { arch: std::env::consts::ARCH.into(), device_tree_model: None };
        assert_ne!(detect(&facts).name(), "generic", "{facts:?}");
    }
}
