//! Where a board shows its temperature and its throttling, and what the text there means.
//!
//! Nothing is read here: the agent's health task opens the files and hands their text in.
//!
//! **Invariant:** text that does not have the expected form gives `None`, never a number.

use std::fmt;

use serde::Deserialize;

/// A temperature in degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Celsius(pub f32);

impl fmt::Display for Celsius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} °C", self.0)
    }
}

/// The thermal zones of a board.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TemperatureSource {
    /// Folders of the thermal zones; `*` stands for any characters within one part of the path.
    pub zones: String,
    /// Texts of the zones' `type` files, the best first; empty takes the hottest of all zones.
    pub types: Vec<String>,
}

impl TemperatureSource {
    /// Picks the board's temperature out of `(type, temp)` texts of all its zones: that of the
    /// first listed type that has a believable reading, or the hottest where no type is listed.
    pub fn pick<'a>(&self, zones: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Celsius> {
        let mut best: Option<(usize, Celsius)> = None;
        for (kind, text) in zones {
            let Some(read) = millidegrees(text) else { continue };
            let kind = kind.trim();
            let rank = match self.types.iter().position(|listed| listed == kind) {
                Some(rank) => rank,
                None if self.types.is_empty() => 0,
                None => continue,
            };
            let better =
                |(old, hottest): (usize, Celsius)| rank < old || (rank == old && read > hottest);
            if best.is_none_or(better) {
                best = Some((rank, read));
            }
        }
        best.map(|(_, read)| read)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = (&'static str, &str)> {
        std::iter::once(("temperature.zones", self.zones.as_str()))
    }
}

/// Reads a thermal zone's `temp`; what no working board can have is no reading.
fn millidegrees(text: &str) -> Option<Celsius> {
    let value: i32 = text.trim().parse().ok()?;
    let degrees = value.checked_div(1000)?;
    let rest = value.checked_rem(1000)?;
    let whole = f32::from(i16::try_from(degrees).ok()?);
    let part = f32::from(i16::try_from(rest).ok()?) / 1000.0;
    (-60..=150).contains(&degrees).then_some(Celsius(whole + part))
}

/// How a board says that it holds itself back because of heat or a weak supply.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ThrottleSource {
    /// The Raspberry Pi firmware's word of bits, in hexadecimal.
    RaspberryPi {
        /// The file; `*` stands for any characters within one part of the path.
        file: String,
    },
    /// Counters that grow with every event.
    EventCount {
        /// The files; `*` as above.
        files: String,
    },
    /// A clock held below what the processor can do: `scaling_max_freq` under `cpuinfo_max_freq`.
    FrequencyCap {
        /// The cpufreq policy folders; `*` as above.
        policies: String,
    },
}

impl ThrottleSource {
    /// Whether the firmware's word says under-voltage, a capped clock, throttling or the soft
    /// temperature limit at this moment (the low four bits; the high ones speak of the past).
    pub fn raspberry_pi_throttled(text: &str) -> Option<bool> {
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        Some(u32::from_str_radix(digits, 16).ok()? & 0xf != 0)
    }

    /// Whether a counter grew between two readings; one that went back was reset and says nothing.
    pub fn events_grew(earlier: &str, now: &str) -> Option<bool> {
        let earlier: u64 = earlier.trim().parse().ok()?;
        let now: u64 = now.trim().parse().ok()?;
        (now >= earlier).then_some(now > earlier)
    }

    /// Whether the limit in force (`scaling_max_freq`) lies under the processor's own
    /// (`cpuinfo_max_freq`).
    pub fn clock_is_capped(scaling_max: &str, cpuinfo_max: &str) -> Option<bool> {
        let allowed: u64 = scaling_max.trim().parse().ok()?;
        let able: u64 = cpuinfo_max.trim().parse().ok()?;
        (able > 0).then_some(allowed < able)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = (&'static str, &str)> {
        std::iter::once(match self {
            Self::RaspberryPi { file } => ("throttle.file", file.as_str()),
            Self::EventCount { files } => ("throttle.files", files.as_str()),
            Self::FrequencyCap { policies } => ("throttle.policies", policies.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(types: &[&str]) -> TemperatureSource {
        TemperatureSource {
            zones: "/sys/class/thermal/thermal_zone*".into(),
            types: types.iter().map(|&t| t.into()).collect(),
        }
    }

    #[test]
    fn the_first_listed_zone_with_a_reading_is_taken() {
        let zones = [("PMIC-Die", "100000"), ("GPU-therm", "41500"), ("CPU-therm\n", "43000\n")];
        let cases: [(&[&str], Option<f32>); 4] = [
            (&["CPU-therm", "GPU-therm"], Some(43.0)),
            (&["missing", "GPU-therm"], Some(41.5)),
            (&["missing"], None),
            (&[], Some(100.0)),
        ];
        for (types, want) in cases {
            assert_eq!(source(types).pick(zones), want.map(Celsius), "{types:?}");
        }
    }

    #[test]
    fn an_unbelievable_reading_is_no_reading() {
        for text in ["", "warm", "-274000", "2147483647", "4000000", "99999999999"] {
            assert_eq!(source(&[]).pick([("cpu", text)]), None, "{text}");
        }
        assert_eq!(source(&[]).pick([("cpu", "-12250")]), Some(Celsius(-12.25)));
    }

    #[test]
    fn raspberry_pi_bits_of_the_past_do_not_count() {
        for (text, want) in [
            ("0x0", Some(false)),
            ("50000\n", Some(false)),
            ("0x50005", Some(true)),
            ("8", Some(true)),
            ("no", None),
        ] {
            assert_eq!(ThrottleSource::raspberry_pi_throttled(text), want, "{text}");
        }
    }

    #[test]
    fn counters_and_caps_compare_readings() {
        assert_eq!(ThrottleSource::events_grew("3", "5\n"), Some(true));
        assert_eq!(ThrottleSource::events_grew("3", "3"), Some(false));
        assert_eq!(ThrottleSource::events_grew("3", "0"), None);
        assert_eq!(ThrottleSource::clock_is_capped("1000000", "1500000\n"), Some(true));
        assert_eq!(ThrottleSource::clock_is_capped("1500000", "1500000"), Some(false));
        assert_eq!(ThrottleSource::clock_is_capped("1500000", "0"), None);
    }
}
