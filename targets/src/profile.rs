//! One board profile: parsed as a whole, then trusted.
//!
//! **Invariant:** a [`Profile`] names only targets that Holdfast is built for, and every fault of a
//! file is reported at once.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::sensor::{TemperatureSource, ThrottleSource};

/// The processor families that Holdfast is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM with NEON and hardware floating point.
    Armv7,
}

impl Arch {
    /// Reads the name that the Rust standard library (`x86_64`, `aarch64`, `arm`) or the kernel
    /// (`armv7l`) gives the processor; `None` when Holdfast is not built for it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            "arm" | "armv7" | "armv7l" => Some(Self::Armv7),
            _ => None,
        }
    }

    /// Reads the first part of a target triple.
    fn of_triple(triple: &str) -> Option<Self> {
        match triple {
            "x86_64-unknown-linux-gnu" => Some(Self::X86_64),
            "aarch64-unknown-linux-gnu" => Some(Self::Aarch64),
            "armv7-unknown-linux-gnueabihf" => Some(Self::Armv7),
            _ => None,
        }
    }
}

/// A version of the GNU C library, `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc {
    /// The part before the point.
    pub major: u16,
    /// The part after the point.
    pub minor: u16,
}

impl FromStr for Glibc {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANT: &str = "must be a C library version such as 2.31";
        let (major, minor) = text.split_once('.').ok_or(WANT)?;
        Ok(Self {
            major: major.parse().map_err(|_| WANT)?,
            minor: minor.parse().map_err(|_| WANT)?,
        })
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An amount of memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryMib(pub u32);

/// The ONNX Runtime that is known to run on a board.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxRuntime {
    /// Its version, such as `1.23.2`.
    pub version: String,
    /// The file name of the Python wheel that it is taken out of; needs no Python.
    pub wheel: String,
    /// SHA-256 of the wheel, in lower-case hexadecimal digits.
    pub sha256: String,
}

impl OnnxRuntime {
    /// The processor that the wheel is for; `None`: its name does not tell, or Holdfast is not built for it.
    pub fn arch(&self) -> Option<Arch> {
        let platform = self.wheel.strip_suffix(".whl")?;
        let archs =
            [("_x86_64", Arch::X86_64), ("_aarch64", Arch::Aarch64), ("_armv7l", Arch::Armv7)];
        archs.into_iter().find(|(end, _)| platform.ends_with(end)).map(|(_, arch)| arch)
    }

    fn fault(&self) -> Option<String> {
        let Self { version, wheel, sha256 } = self;
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if sha256.len() != 64 || !sha256.chars().all(is_hex) {
            return Some(format!("onnxruntime.sha256 = {sha256:?}: must be 64 of 0-9 and a-f"));
        }
        let is_of_version = wheel.starts_with(&format!("onnxruntime-{version}-"));
        if version.is_empty() || !is_of_version || wheel.contains('/') || self.arch().is_none() {
            return Some(format!(
                "onnxruntime.wheel = {wheel:?}: must be the file name of a wheel of version {version:?}"
            ));
        }
        None
    }
}

/// One kind of board.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    description: String,
    targets: Vec<String>,
    cores: u16,
    memory: MemoryMib,
    glibc: Glibc,
    models: Vec<String>,
    onnxruntime: Option<OnnxRuntime>,
    temperature: TemperatureSource,
    throttle: Option<ThrottleSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    description: String,
    targets: Vec<String>,
    cores: u16,
    memory_mib: u32,
    glibc: String,
    detect: Option<RawDetect>,
    onnxruntime: Option<OnnxRuntime>,
    temperature: TemperatureSource,
    throttle: Option<ThrottleSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDetect {
    device_tree_model: Vec<String>,
}

/// Why a board profile was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, or not the keys of a profile.
    #[error("board profile {file} does not read as a profile")]
    Syntax {
        /// The file as the caller named it.
        file: String,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Well formed, but with values that cannot be.
    #[error("board profile {file} refused: {}", faults.join("; "))]
    Faults {
        /// The file as the caller named it.
        file: String,
        /// `key = value: rule` for every fault found.
        faults: Vec<String>,
    },
}

impl Profile {
    /// Reads one profile; `file` only names it in errors.
    ///
    /// # Errors
    /// [`ProfileError::Syntax`] when the text is no profile, [`ProfileError::Faults`] with every
    /// impossible value otherwise.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let raw: Raw = toml::from_str(text).map_err(|source| ProfileError::Syntax {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        let mut faults = Vec::new();
        let mut need = |good: bool, fault: String| {
            if !good {
                faults.push(fault);
            }
        };
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        need(
            (1..=64).contains(&raw.name.len()) && raw.name.chars().all(named),
            format!("name = {:?}: must be 1..=64 of a-z, 0-9, - and _", raw.name),
        );
        need(!raw.description.trim().is_empty(), "description: must say what board this is".into());
        for triple in &raw.targets {
            need(
                Arch::of_triple(triple).is_some(),
                format!("targets: {triple:?} is no target that Holdfast is built for"),
            );
        }
        need(raw.cores > 0, "cores = 0: must be 1 or more".into());
        need(raw.memory_mib >= 64, format!("memory_mib = {}: must be 64 or more", raw.memory_mib));
        let glibc = raw.glibc.parse::<Glibc>();
        if let Err(rule) = glibc {
            need(false, format!("glibc = {:?}: {rule}", raw.glibc));
        }
        if let Some(fault) = raw.onnxruntime.as_ref().and_then(OnnxRuntime::fault) {
            need(false, fault);
        }
        let models = raw.detect.map(|detect| detect.device_tree_model);
        need(
            models.as_ref().is_none_or(|m| !m.is_empty() && m.iter().all(|m| m.len() >= 4)),
            "detect.device_tree_model: must name one or more models, 4 characters at least".into(),
        );
        for (key, path) in
            raw.temperature.paths().chain(raw.throttle.iter().flat_map(|t| t.paths()))
        {
            need(path.starts_with("/sys/"), format!("{key} = {path:?}: must lie under /sys/"));
        }
        match glibc {
            Ok(glibc) if faults.is_empty() => Ok(Self {
                name: raw.name,
                description: raw.description,
                targets: raw.targets,
                cores: raw.cores,
                memory: MemoryMib(raw.memory_mib),
                glibc,
                models: models.unwrap_or_default(),
                onnxruntime: raw.onnxruntime,
                temperature: raw.temperature,
                throttle: raw.throttle,
            }),
            _ => Err(ProfileError::Faults { file: file.to_owned(), faults }),
        }
    }

    /// The name by which configuration, health and logs speak of the board.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One sentence for a person.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The target triples that run on the board, the preferred one first; empty for the profile of
    /// last resort.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Processor cores.
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// Memory of the smallest form in which the board is sold.
    pub fn memory(&self) -> MemoryMib {
        self.memory
    }

    /// The oldest C library that a supported operating system of the board brings; a binary for the
    /// board must not need a newer one.
    pub fn glibc(&self) -> Glibc {
        self.glibc
    }

    /// The ONNX Runtime for this board in a program for `arch`; `None`: none is published for it.
    pub fn onnxruntime(&self, arch: Arch) -> Option<&OnnxRuntime> {
        self.onnxruntime.as_ref().filter(|found| found.arch() == Some(arch))
    }

    /// Parts of the device tree's model text that tell this board; empty for the generic profiles.
    pub fn device_tree_models(&self) -> &[String] {
        &self.models
    }

    /// Where the board shows its temperature.
    pub fn temperature(&self) -> &TemperatureSource {
        &self.temperature
    }

    /// Where the board shows that it holds itself back, if it does.
    pub fn throttle(&self) -> Option<&ThrottleSource> {
        self.throttle.as_ref()
    }

    /// Whether a binary for `arch` can run here; the profile of last resort takes every one.
    pub fn runs(&self, arch: Option<Arch>) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|t| Arch::of_triple(t) == arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "b"
        description = "a board"
        targets = ["aarch64-unknown-linux-gnu"]
        cores = 4
        memory_mib = 1024
        glibc = "2.31"
        [temperature]
        zones = "/sys/class/thermal/thermal_zone*"
        types = ["cpu-thermal"]
    "#;

    #[test]
    fn all_faults_are_reported_at_once() {
        let text = GOOD
            .replace("cores = 4", "cores = 0")
            .replace("memory_mib = 1024", "memory_mib = 8")
            .replace("\"2.31\"", "\"new\"")
            .replace("aarch64-unknown-linux-gnu", "riscv64gc-unknown-linux-gnu")
            .replace("/sys/class", "/etc")
            .replace("name = \"b\"", "name = \"A Board\"")
            .replace("a board", " ");
        let refused = Profile::parse("x.toml", &text).expect_err("seven faults").to_string();
        for part in [
            "x.toml",
            "cores = 0",
            "memory_mib = 8",
            "glibc = \"new\"",
            "riscv64gc",
            "/etc",
            "A Board",
            "description",
        ] {
            assert!(refused.contains(part), "{part} is missing in: {refused}");
        }
    }

    #[test]
    fn unknown_keys_and_kinds_are_refused() {
        for extra in ["colour = 1", "[throttle]\nkind = \"guess\"", "[detect]\nmodel = [\"x\"]"] {
            let text = if extra.starts_with('[') {
                format!("{GOOD}\n{extra}")
            } else {
                format!("{extra}\n{GOOD}")
            };
            let refused = Profile::parse("x.toml", &text).expect_err(extra);
            assert!(matches!(refused, ProfileError::Syntax { .. }), "{extra}: {refused}");
        }
        Profile::parse("x.toml", GOOD).expect("the text without the extra line is a profile");
    }

    #[test]
    fn a_wheel_fits_its_version_processor_and_digest() {
        let digest = "0f".repeat(32);
        let board = |version: &str, wheel: &str, digest: &str| {
            let table = format!(
                "[onnxruntime]\nversion = {version:?}\nwheel = {wheel:?}\nsha256 = {digest:?}\n"
            );
            Profile::parse("x.toml", &format!("{GOOD}\n{table}"))
        };
        let wheel = "onnxruntime-1.23.2-cp312-cp312-manylinux_2_28_aarch64.whl";
        let good = board("1.23.2", wheel, &digest).expect("a good one");
        assert_eq!(good.onnxruntime(Arch::Aarch64).expect("there is one").wheel, wheel);
        assert_eq!(good.onnxruntime(Arch::Armv7), None);
        for (version, wheel, digest) in [
            ("1.23.1", wheel, &*digest),
            ("", wheel, &digest),
            ("1.23.2", "onnxruntime-1.23.2.tar.gz", &digest),
            ("1.23.2", "onnxruntime-1.23.2-py3-none-any.whl", &digest),
            ("1.23.2", "onnxruntime-1.23.2-/../manylinux_2_28_aarch64.whl", &digest),
            ("1.23.2", wheel, "0F"),
            ("1.23.2", wheel, &digest.to_uppercase()),
        ] {
            let refused = board(version, wheel, digest).expect_err(wheel).to_string();
            assert!(refused.contains("onnxruntime."), "{refused}");
        }
    }

    #[test]
    fn glibc_versions_compare_by_number() {
        let read = |text: &str| text.parse::<Glibc>().expect("a version");
        assert!(read("2.9") < read("2.31"));
        assert_eq!(read("2.31").to_string(), "2.31");
        for bad in ["", "2", "2.", "2.31.1", "-2.3"] {
            assert!(bad.parse::<Glibc>().is_err(), "{bad} was taken");
        }
    }
}
