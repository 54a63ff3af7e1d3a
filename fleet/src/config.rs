//! The controller's configuration: defaults, then a file, then the environment, then the command line.
//!
//! ```toml
//! data_dir = "/var/lib/holdfast-fleet"
//! [http]
//! listen = "127.0.0.1:8480"
//! [mqtt]
//! listen = "127.0.0.1:1883"       # the embedded broker
//! broker = "mqtt.example:1883"    # an external broker instead of it
//! [registry]
//! max_devices = 100000
//! ```
//!
//! **Invariant:** a [`Config`] that exists is valid as a whole; otherwise every fault is reported at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

const ENVIRONMENT: &str = "HOLDFAST_FLEET_";
/// Beginnings of variables with our prefix that are not our settings: the log's, and those of the
/// agent's section `fleet`.
const NOT_SETTINGS: [&str; 2] = ["HOLDFAST_FLEET_LOG", "HOLDFAST_FLEET__"];
const MAX_DEVICES: std::ops::RangeInclusive<usize> = 1..=10_000_000;

/// What `serve` goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the registry and the controller's key lie.
    pub data_dir: PathBuf,
    /// Where the page and the API are served; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Where the embedded broker listens; port 0 takes a free one.
    pub mqtt_listen: SocketAddr,
    /// Host and port of an external broker, instead of the embedded one.
    pub mqtt_broker: Option<(String, u16)>,
    /// So many devices may appear.
    pub max_devices: usize,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One sentence for each fault: key, value, what is allowed.
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "configuration has {count} fault{}:", if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// One setting: its key in the file, and how it is put into the configuration.
struct Setting {
    key: &'static str,
    put: fn(&mut Config, &str) -> Result<(), &'static str>,
}

const SETTINGS: [Setting; 5] = [
    Setting {
        key: "data_dir",
        put: |config, text| {
            config.data_dir = PathBuf::from(text);
            if text.is_empty() { Err("must be a directory") } else { Ok(()) }
        },
    },
    Setting { key: "http.listen", put: |config, text| address(text, &mut config.http_listen) },
    Setting { key: "mqtt.listen", put: |config, text| address(text, &mut config.mqtt_listen) },
    Setting {
        key: "mqtt.broker",
        put: |config, text| {
            config.mqtt_broker = Some(host_and_port(text)?);
            Ok(())
        },
    },
    Setting {
        key: "registry.max_devices",
        put: |config, text| match text.parse() {
            Ok(count) if MAX_DEVICES.contains(&count) => {
                config.max_devices = count;
                Ok(())
            }
            _ => Err("must be 1..=10000000"),
        },
    },
];

fn address(text: &str, into: &mut SocketAddr) -> Result<(), &'static str> {
    *into = text
        .parse()
        .map_err(|_| "must be an address and a port, such as 127.0.0.1:8480 or [::1]:8480")?;
    Ok(())
}

fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    const RULE: &str = "must be a host and a port, such as mqtt.example:1883";
    let (host, port) = text.rsplit_once(':').ok_or(RULE)?;
    let port = port.parse().map_err(|_| RULE)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host =
        !bare.is_empty() && bare.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
    // An IPv6 address without brackets would lose its last group to the port.
    let is_clear = bare.len() != host.len() || !host.contains(':');
    if is_host && is_clear && port != 0 { Ok((bare.to_owned(), port)) } else { Err(RULE) }
}

impl Config {
    /// The defaults, given the place for data.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            http_listen: SocketAddr::from(([127, 0, 0, 1], 8480)),
            mqtt_listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            mqtt_broker: None,
            max_devices: 100_000,
        }
    }

    /// Puts a file, the environment and the command line (as key and value) over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] lists every fault of all of them.
    pub fn over(
        mut self,
        file: Option<&str>,
        environment: impl Iterator<Item = (String, String)>,
        arguments: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        match file.unwrap_or_default().parse::<Table>() {
            Ok(table) => self.put_table("", &table, &mut faults),
            Err(error) => faults
                .push(format!("not TOML: {}", error.to_string().trim_end().replace('\n', "\n  "))),
        }
        for (name, value) in environment.filter(|(name, _)| is_setting(name)) {
            let found = SETTINGS.iter().find(|setting| variable(setting.key) == name);
            match found {
                Some(setting) => self.put(&name, setting, &value, &mut faults),
                None => {
                    let known: Vec<String> =
                        SETTINGS.iter().map(|setting| variable(setting.key)).collect();
                    faults.push(format!("{name} is no setting; there are {}", known.join(", ")));
                }
            }
        }
        for (key, value) in arguments {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
                self.put(key, setting, &value, &mut faults);
            }
        }
        if faults.is_empty() { Ok(self) } else { Err(ConfigError { faults }) }
    }

    fn put_table(&mut self, prefix: &str, table: &Table, faults: &mut Vec<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            let section = format!("{key}.");
            let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&section));
            match (setting, value) {
                (Some(setting), Value::String(text)) => self.put(&key, setting, text, faults),
                (Some(setting), Value::Integer(number)) => {
                    self.put(&key, setting, &number.to_string(), faults)
                }
                (Some(_), other) => {
                    faults.push(format!("{key} = {other}: must be a text or a number"))
                }
                (None, Value::Table(inner)) if is_section => {
                    self.put_table(&section, inner, faults)
                }
                (None, _) if is_section => {
                    faults.push(format!("{key}: must be a section, [{key}]"))
                }
                (None, _) => {
                    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
                    faults.push(format!("{key} is no setting; there are {}", known.join(", ")));
                }
            }
        }
    }

    fn put(&mut self, name: &str, setting: &Setting, value: &str, faults: &mut Vec<String>) {
        if let Err(rule) = (setting.put)(self, value) {
            faults.push(format!("{name} = {value:?}: {rule}"));
        }
    }
}

fn variable(key: &str) -> String {
    format!("{ENVIRONMENT}{}", key.to_uppercase().replace('.', "_"))
}

fn is_setting(name: &str) -> bool {
    name.starts_with(ENVIRONMENT) && !NOT_SETTINGS.iter().any(|other| name.starts_with(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        file: &str,
        environment: &[(&str, &str)],
        arguments: &[(&'static str, &str)],
    ) -> Result<Config, ConfigError> {
        Config::new("data".into()).over(
            Some(file),
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
            arguments.iter().map(|(k, v)| (*k, (*v).to_owned())),
        )
    }

    #[test]
    fn the_narrower_place_wins() {
        let file = "data_dir = \"/f\"\n[http]\nlisten = \"127.0.0.1:1\"\n[mqtt]\nlisten = \"127.0.0.1:1\"\n[registry]\nmax_devices = 7";
        let environment = [
            ("HOLDFAST_FLEET_HTTP_LISTEN", "127.0.0.1:2"),
            ("HOLDFAST_FLEET_MQTT_LISTEN", "127.0.0.1:2"),
            ("PATH", "x"),
            ("HOLDFAST_FLEET_LOG", "debug"),
            ("HOLDFAST_FLEET__BROKER", "a:1"),
        ];
        let got = read(
            file,
            &environment,
            &[("mqtt.listen", "[::1]:3"), ("mqtt.broker", "[fd00::1]:1884")],
        )
        .unwrap();
        let want = Config {
            data_dir: "/f".into(),
            http_listen: "127.0.0.1:2".parse().unwrap(),
            mqtt_listen: "[::1]:3".parse().unwrap(),
            mqtt_broker: Some(("fd00::1".into(), 1884)),
            max_devices: 7,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let file = "http = 3\nspeed = 1\n[mqtt]\nlisten = \"here\"\nbroker = \"fd00::1:1883\"\ncolour = \"red\"\n[registry]\nmax_devices = 0";
        let environment = [("HOLDFAST_FLEET_DATA_DIR", ""), ("HOLDFAST_FLEET_TYPO", "1")];
        let faults = read(file, &environment, &[("http.listen", "nowhere")]).unwrap_err().faults;
        let starts = [
            "http: must be a section",
            "mqtt.broker = \"fd00::1:1883\": must be a host and a port",
            "mqtt.colour is no setting; there are data_dir, http.listen",
            "mqtt.listen = \"here\": must be an address",
            "registry.max_devices = \"0\": must be 1..=10000000",
            "speed is no setting",
            "HOLDFAST_FLEET_DATA_DIR = \"\": must be a directory",
            "HOLDFAST_FLEET_TYPO is no setting; there are HOLDFAST_FLEET_DATA_DIR",
            "http.listen = \"nowhere\": must be an address",
        ];
        for start in starts {
            assert!(
                faults.iter().any(|fault| fault.starts_with(start)),
                "{start:?} is not in {faults:#?}"
            );
        }
        assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    }

    #[test]
    fn the_file_that_ships_holds_the_defaults() {
        let got = read(include_str!("../fleet.toml"), &[], &[]).unwrap();
        assert_eq!(got, Config::new("/var/lib/holdfast-fleet".into()));
    }

    #[test]
    fn what_is_not_toml_says_where() {
        let error = read("[http\nlisten = 1", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
