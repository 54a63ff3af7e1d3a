//! `holdfast-agent runtime`: puts the libonnxruntime that fits this board in place, and takes it away.
//!
//! **Invariant:** what came over a network is used only if its digest was known before.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use holdfast_targets::{Arch, OnnxRuntime, Profile};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{ConfigArgs, Exit, Failure, output, table};
use crate::clock::Clock;
use crate::escalate::{DownloadError, download};
use crate::install::store::{self, Installed, Role, Store};
use crate::install::{InstallError, install, sha256_of};
use crate::network::{self, Network, Purpose};
use crate::run::board_facts;
use crate::tune::library::OnnxRuntimeConfig;
use crate::tune::probe::Program;

/// What this command is called in the count of bytes.
const COMMAND_LINE: &str = "command-line";
/// No published archive of ONNX Runtime is larger.
const MOST_FETCHED: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
pub(super) struct RuntimeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a libonnxruntime in place; without a source, say what to fetch for this board
    Install(InstallArgs),
    /// List what was put in place
    Ls(Common),
    /// Go back to the one before
    Rollback(Common),
    /// Remove one; without a name the one in service, after which none is until `rollback` or `install`
    Remove {
        /// Its name or version, as `runtime ls` lists it
        name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct InstallArgs {
    /// A Python wheel, .zip or .tgz of ONNX Runtime, or a libonnxruntime.so: a file, or a URL with --sha256
    #[arg(conflicts_with = "wheel_dir")]
    source: Option<String>,
    /// What its SHA-256 must be, in hexadecimal digits
    #[arg(long, value_parser = digest)]
    sha256: Option<String>,
    /// A folder that has the wheel for this board among others
    #[arg(long)]
    wheel_dir: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of libraries; `models.onnxruntime` must then name the `current` in it [default: runtime in
    /// device.state_dir]
    #[arg(long)]
    to: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    installed: Installed,
    role: Role,
}

/// What is left after one was removed.
#[derive(Debug, Serialize)]
struct Removed {
    #[serde(flatten)]
    gone: Installed,
    /// The one in service; none: models run on the built-in runtime, or on one that lies elsewhere.
    in_service: Option<String>,
    /// The one that `runtime rollback` puts in service.
    previous: Option<String>,
}

/// What fits this board.
#[derive(Debug, Serialize)]
struct Advice {
    board: &'static str,
    version: Option<&'static str>,
    wheel: Option<&'static str>,
    sha256: Option<&'static str>,
}

fn digest(text: &str) -> Result<String, &'static str> {
    let is_digest = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("must be 64 hexadecimal digits") }
}

pub(super) fn runtime(args: RuntimeArgs, program: Option<Program>) -> Result<Exit, Failure> {
    match args.command {
        Command::Install(args) if args.source.is_none() && args.wheel_dir.is_none() => {
            advise(&args.common)
        }
        Command::Install(args) => put_in_place(&args, program),
        Command::Ls(common) => {
            let all = store::list(&common.folder()?)?;
            let rows: Vec<_> =
                all.into_iter().map(|(installed, role)| Row { installed, role }).collect();
            if common.json { output::print_json(&rows) } else { output::print(&lines(&rows)) }?;
            Ok(Exit::Fine)
        }
        Command::Rollback(common) => {
            let now = Store::open(&common.folder()?)?.roll_back()?;
            common.tell(&now, &format!("ONNX Runtime {} is in service again", now.version))
        }
        Command::Remove { name, common } => {
            let store = Store::open(&common.folder()?)?;
            let gone = store.remove(name.as_deref())?;
            let left = store::list(store.dir())?;
            let named = |wanted| {
                let found = left.iter().find(|(_, role)| *role == wanted);
                found.map(|(installed, _)| installed.name.clone())
            };
            let (in_service, previous) = (named(Role::Current), named(Role::Previous));
            removed(&common, Removed { gone, in_service, previous })
        }
    }
}

impl Common {
    fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.to {
            Some(to) => Ok(to.clone()),
            None => Ok(store::folder(&self.config.load()?.state_dir)),
        }
    }

    /// Says what was done, and when it counts.
    fn tell(&self, what: &impl Serialize, done: &str) -> Result<Exit, Failure> {
        if self.json {
            output::print_json(what)?;
        } else {
            output::print(done)?;
            output::print("a running agent follows at its next start")?;
        }
        Ok(Exit::Fine)
    }
}

fn board() -> (&'static Profile, Option<&'static OnnxRuntime>) {
    let facts = board_facts();
    let profile = holdfast_targets::detect(&facts);
    (profile, Arch::parse(&facts.arch).and_then(|arch| profile.onnxruntime(arch)))
}

fn advise(common: &Common) -> Result<Exit, Failure> {
    let (profile, fits) = board();
    let advice = Advice {
        board: profile.name(),
        version: fits.map(|fits| &*fits.version),
        wheel: fits.map(|fits| &*fits.wheel),
        sha256: fits.map(|fits| &*fits.sha256),
    };
    if common.json {
        output::print_json(&advice)?;
        return Ok(Exit::Fine);
    }
    let Some(fits) = fits else {
        let name = profile.name();
        output::print(&format!(
            "no ONNX Runtime is published for this board ({name}): models run on the built-in runtime; \
             one that you built yourself is put in place with `runtime install FILE`"
        ))?;
        return Ok(Exit::Fine);
    };
    let OnnxRuntime { version, wheel, sha256 } = fits;
    // As in the name of the wheel: from the second-last part on, python, ABI, platforms.
    let platform = wheel.trim_end_matches(".whl").rsplit(['-', '.']).next().unwrap_or_default();
    output::print(&format!(
        "this board ({}) runs ONNX Runtime {version}\n  file    {wheel}\n  sha256  {sha256}\n\
         fetch it on any machine with Python, which the board itself does not need:\n  \
         python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
         --platform {platform} onnxruntime=={version}\n\
         and put it in place here:\n  holdfast-agent runtime install {wheel}\n\
         or from a server of your own:\n  holdfast-agent runtime install URL --sha256 {sha256}",
        profile.name(),
    ))?;
    Ok(Exit::Fine)
}

fn put_in_place(args: &InstallArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let InstallArgs { source, sha256, wheel_dir, common } = args;
    let program = program.ok_or_else(|| {
        Failure::new(Exit::Unavailable, "this program cannot start itself to try a library")
    })?;
    let (_, fits) = board();
    let source = match (source, wheel_dir, fits) {
        (Some(source), _, _) => source.clone(),
        (None, Some(dir), Some(fits)) => dir.join(&fits.wheel).display().to_string(),
        (None, _, _) => {
            let sentence = "no wheel is known for this board: name a file instead of --wheel-dir";
            return Err(Failure::new(Exit::Unavailable, sentence));
        }
    };
    // The wheel that the board's profile names must be that one.
    let name = source.rsplit('/').next().unwrap_or_default();
    let known = fits.filter(|fits| fits.wheel == name).map(|fits| fits.sha256.clone());
    let wanted = sha256.clone().or(known);
    let folder = common.folder()?;
    let is_url = source.contains("://");
    if is_url && wanted.is_none() {
        let sentence =
            "a URL needs --sha256: what comes over a network is used only if it is known";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    if !is_url && !Path::new(&source).is_file() {
        let sentence = format!("no file {source}: `runtime install` alone says what to fetch");
        return Err(Failure::new(Exit::Unavailable, sentence));
    }
    let store = Store::open(&folder)?;
    let runtime = super::runtime()?;
    let archive = match (is_url, &wanted) {
        (true, Some(wanted)) => {
            let meter = Meter::of(common)?;
            let fetched = runtime.block_on(fetch(&source, store.download(wanted), wanted, &meter));
            meter.tell_agent();
            fetched?
        }
        _ => PathBuf::from(&source),
    };
    let installed =
        runtime.block_on(install(&store, &program, (&archive, &source), wanted.as_deref()));
    if is_url && !matches!(installed, Err(InstallError::Storage { .. })) {
        // Whole or not what it should be: to go on behind it is no use.
        drop(std::fs::remove_file(&archive));
    }
    let installed = installed?;
    report(common, &installed, wanted.is_some(), store.dir())
}

fn removed(common: &Common, removed: Removed) -> Result<Exit, Failure> {
    let Removed { gone, in_service, previous } = &removed;
    let mut done = format!("{} is removed; ", gone.name);
    done += &match (in_service, previous) {
        (Some(name), _) => format!("{name} stays in service"),
        (None, Some(name)) => format!(
            "none is in service now, {name} is still here: `runtime rollback` puts it in service"
        ),
        (None, None) => "none is left: models run on the built-in runtime".to_owned(),
    };
    common.tell(&removed, &done)
}

fn report(
    common: &Common,
    installed: &Installed,
    is_checked: bool,
    folder: &Path,
) -> Result<Exit, Failure> {
    let Installed { name, version, sha256, runtimes, .. } = installed;
    let checked = if is_checked { "as it must be" } else { "not compared with anything" };
    let done = format!(
        "ONNX Runtime {version} is in place: {} ({})\nsha256 {sha256}, {checked}",
        folder.join(name).display(),
        runtimes.join(", ")
    );
    let current = folder.join("current");
    let is_found = match common.config.load()?.models.onnxruntime {
        OnnxRuntimeConfig::Installed(found) => {
            found.canonicalize().ok() == current.canonicalize().ok()
        }
        OnnxRuntimeConfig::At(path) => path.canonicalize().ok() == current.canonicalize().ok(),
        OnnxRuntimeConfig::Auto | OnnxRuntimeConfig::Off => false,
    };
    if !is_found {
        eprintln!(
            "note: the agent looks elsewhere: set models.onnxruntime = \"{}\"",
            current.display()
        );
    }
    common.tell(installed, &done)
}

/// What a metered link may carry of what this command fetches.
struct Meter {
    /// What is counted here, for the agent.
    fetched: Network,
    /// The agent's count, and where its state is; none where no configuration is named.
    agent: Option<(Network, PathBuf)>,
}

impl Meter {
    fn of(common: &Common) -> Result<Self, Failure> {
        let fetched = Network::default();
        if common.to.is_some() && common.config.config.is_none() {
            return Ok(Self { fetched, agent: None });
        }
        let config = common.config.load()?;
        let clock = Clock::resume(&config.state_dir);
        let agents = Network::open(&config.state_dir, clock, config.network);
        Ok(Self { fetched, agent: Some((agents, config.state_dir)) })
    }

    fn has_room(&self) -> Result<(), Failure> {
        let Some((network, _)) = &self.agent else { return Ok(()) };
        network.may(COMMAND_LINE, false).map_err(|used_up| {
            let sentence = format!(
                "nothing is fetched: the data budget of the metered link is used up until {}; run the \
                 command again then, or over another link",
                used_up.until()
            );
            Failure::new(Exit::Unavailable, sentence)
        })
    }

    /// Leaves the agent what was fetched, to be counted.
    fn tell_agent(&self) {
        let (Some((_, state_dir)), Some(bytes)) =
            (&self.agent, self.fetched.count().day.get(Purpose::Download.as_str()).copied())
        else {
            return;
        };
        if let Err(error) = network::leave(state_dir, bytes) {
            eprintln!("note: what was fetched is not in the agent's count of bytes: {error}");
        }
    }
}

/// Fetches the archive into a file, where it stays if it does not come whole.
async fn fetch(url: &str, to: PathBuf, sha256: &str, meter: &Meter) -> Result<PathBuf, Failure> {
    if to.is_file() && sha256_of(&to)? == sha256 {
        return Ok(to);
    }
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    let form = "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    meter.has_room()?;
    let tap = meter.fetched.tap(Purpose::Download, COMMAND_LINE);
    let fetched = download(url, &to, MOST_FETCHED, tap, |there, total| {
        bar.set_length(total.unwrap_or(there));
        bar.set_position(there);
    });
    let fetched = fetched.await;
    bar.finish_and_clear();
    // Of what came nothing is kept that the next call could not go on behind.
    let is_empty = || std::fs::metadata(&to).is_ok_and(|metadata| metadata.len() == 0);
    if matches!(fetched, Err(DownloadError::TooLarge { .. })) || (fetched.is_err() && is_empty()) {
        drop(std::fs::remove_file(&to));
    }
    fetched.map(|()| to).map_err(|error| {
        let exit = match &error {
            DownloadError::Url(_) => Exit::Usage,
            DownloadError::Write { .. } => Exit::Storage,
            DownloadError::Status { .. }
            | DownloadError::Broken { .. }
            | DownloadError::TooLarge { .. } => Exit::Unavailable,
        };
        Failure::new(exit, crate::error_chain(&error))
    })
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let exit = match &error {
            InstallError::Refused { .. }
            | InstallError::Digest { .. }
            | InstallError::Unknown { .. } => Exit::Found,
            InstallError::InUse(_) | InstallError::Untried(_) => Exit::Unavailable,
            InstallError::Storage { .. } => Exit::Storage,
        };
        Self::new(exit, crate::error_chain(&error))
    }
}

fn lines(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing was put in place; `runtime install` says what fits this board".to_owned();
    }
    let mut table = table::table(&["", "NAME", "VERSION", "RUNTIMES", "SHA256", "FROM"]);
    for Row { installed, role } in rows {
        let Installed { name, version, sha256, source, runtimes } = installed;
        let mark = match role {
            Role::Current => "*",
            Role::Previous => "previous",
            Role::Old => "",
        };
        let from = source.rsplit('/').next().unwrap_or(source);
        table.add_row([mark, name, version, &runtimes.join(" "), sha256, from]);
    }
    table::lines(&table)
}
