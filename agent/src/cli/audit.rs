//! `holdfast-agent audit`: what left the device, and whether the record of it is as it was written.
//!
//! **Invariant:** it reads files, and works whether or not the agent runs.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::{Common, Exit, Failure, output, table};
use crate::audit::{self, Break, Chain, Ended, Entry, Event, Seal, Sent};
use crate::config::Config;
use crate::destination::Zone;
use crate::request::DataClass;

#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what was sent, the newest last
    Ls {
        /// So many at most, the newest; 0 for all [default: 100, and all with --json]
        #[arg(long)]
        limit: Option<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Check that no line was changed, or taken out or put in between others; exit code 1 where one was,
    /// 69 where there is no record
    Verify {
        /// A last seal of earlier, which must be in the record
        #[arg(long, value_name = "HEX", value_parser = seal)]
        seal: Option<Seal>,
        #[command(flatten)]
        common: Common,
    },
    /// List what was sent that another policy would have kept here; exit code 1 where there is some
    Replay {
        /// A configuration file with the other policy
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

fn seal(text: &str) -> Result<Seal, &'static str> {
    Seal::from_hex(text).ok_or("64 hexadecimal digits")
}

/// Runs the command.
///
/// # Errors
/// A configuration or a record that cannot be read.
pub(super) fn audit(args: &AuditArgs) -> Result<Exit, Failure> {
    match &args.command {
        Command::Ls { limit, common } => list(*limit, common),
        Command::Verify { seal, common } => verify(*seal, common),
        Command::Replay { policy, common } => replay(policy, common),
    }
}

/// One send, with its end if that is known.
#[derive(Debug, Clone, Serialize)]
struct Row {
    date: String,
    date_is_trusted: bool,
    at_ms: u64,
    #[serde(flatten)]
    sent: Sent,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

/// Puts the lines of sends and their ends together, and keeps the newest.
#[derive(Debug, Default)]
struct Rows {
    rows: VecDeque<Row>,
    /// How many went before the first that is kept.
    dropped: usize,
    /// Which one has no end yet, by what it is of.
    open: BTreeMap<(String, String), usize>,
    limit: usize,
}

impl Rows {
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Begun { .. } => {}
            Event::Sent(sent) => {
                let key = (sent.request.to_string(), sent.destination.clone());
                self.open.insert(key, self.dropped + self.rows.len());
                let Entry { at_ms, date, date_is_trusted, .. } = entry.clone();
                self.rows.push_back(Row {
                    date,
                    date_is_trusted,
                    at_ms,
                    sent: sent.clone(),
                    ended: None,
                });
                if self.limit > 0 && self.rows.len() > self.limit {
                    self.rows.pop_front();
                    self.dropped += 1;
                }
            }
            Event::Ended(ended) => {
                let key = (ended.request.to_string(), ended.destination.clone());
                let at = self.open.remove(&key).and_then(|at| at.checked_sub(self.dropped));
                if let Some(row) = at.and_then(|at| self.rows.get_mut(at)) {
                    row.ended = Some(ended.clone());
                }
            }
        }
    }
}

fn read(config: &Config, visit: impl FnMut(&Entry, Seal)) -> Result<Chain, Failure> {
    let folder = audit::folder(&config.state_dir);
    audit::read(&folder, visit).map_err(|error| unreadable(&folder, &error))
}

fn unreadable(folder: &std::path::Path, error: &io::Error) -> Failure {
    let sentence = format!(
        "the record in {} cannot be read: {error}; the agent's user and root can read it",
        folder.display()
    );
    Failure::new(Exit::Storage, sentence)
}

/// Rows of text where nobody says how many.
const NEWEST: usize = 100;

fn list(limit: Option<usize>, common: &Common) -> Result<Exit, Failure> {
    let config = common.config.load()?;
    let limit = limit.unwrap_or(if common.json { 0 } else { NEWEST });
    let mut rows = Rows { limit, ..Rows::default() };
    let chain = read(&config, |entry, _| rows.take(entry))?;
    warn_of(&chain);
    let (shown, all) = (rows.rows.len(), rows.dropped + rows.rows.len());
    print_rows(&Vec::from(rows.rows), common.json, &nothing(&config))?;
    if shown < all {
        eprintln!("the newest {shown} of {all}; --limit N shows more, --limit 0 all");
    }
    Ok(Exit::Fine)
}

/// Says beside a list that it is of a record which is not as it was written.
fn warn_of(chain: &Chain) {
    if let Some(Break { file, line, .. }) = chain.breaks.first() {
        let (count, path) = (chain.breaks.len(), file.display());
        eprintln!(
            "warning: the record is not as it was written in {count} places, the first is {path}:{line}; \
             see holdfast-agent audit verify"
        );
    }
}

/// Why there is no record.
fn nothing(config: &Config) -> String {
    match config.audit.max_bytes {
        0 => "no record is kept: audit.max_mib is 0".to_owned(),
        _ => format!(
            "there is no record in {}: nothing was sent since it is kept, or it was taken away",
            audit::folder(&config.state_dir).display()
        ),
    }
}

fn print_rows(rows: &[Row], json: bool, none: &str) -> Result<(), Failure> {
    if json {
        return output::print_json(&rows);
    }
    if rows.is_empty() {
        eprintln!("{none}");
        return Ok(());
    }
    let header =
        ["DATE", "REQUEST", "ASKED", "CLASS", "DESTINATION", "ZONE", "BYTES", "COST", "OUTCOME"];
    let mut table = table::table(&header);
    for Row { date, date_is_trusted, sent, ended, .. } in rows {
        let doubt = if *date_is_trusted { "" } else { "?" };
        table.add_row([
            format!("{date}{doubt}"),
            sent.request.to_string(),
            if sent.asked.is_empty() { "-" } else { &sent.asked }.to_owned(),
            sent.class.to_string(),
            sent.destination.clone(),
            sent.zone.to_string(),
            sent.bytes.to_string(),
            ended.as_ref().map_or("-".to_owned(), |ended| ended.cost_micros.to_string()),
            ended.as_ref().map_or("unknown", |ended| &ended.outcome).to_owned(),
        ]);
    }
    output::print(&table::lines(&table))
}

/// How the record is.
#[derive(Debug, Serialize)]
struct Verdict {
    lines: u64,
    first: u64,
    last_seal: String,
    /// Whether the seal that was asked for is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_seal: Option<bool>,
    breaks: Vec<Break>,
}

fn verify(wanted: Option<Seal>, common: &Common) -> Result<Exit, Failure> {
    let config = common.config.load()?;
    let mut is_met = false;
    let chain = read(&config, |_, seal| is_met |= Some(seal) == wanted)?;
    if chain.lines == 0 && chain.breaks.is_empty() {
        return Err(Failure::new(Exit::Unavailable, nothing(&config)));
    }
    let Chain { lines, first, last, breaks, .. } = chain;
    let has_seal = wanted.map(|_| is_met);
    let is_whole = breaks.is_empty() && has_seal != Some(false);
    let verdict = Verdict { lines, first, last_seal: last.to_hex(), has_seal, breaks };
    if common.json {
        output::print_json(&verdict)?;
    } else {
        for Break { file, line, what } in &verdict.breaks {
            output::print(&format!("{}:{line}: this line {what}", file.display()))?;
        }
        if has_seal == Some(false) {
            output::print(
                "the seal is not in the record: it was written anew, or is older than what is kept",
            )?;
        }
        let word = if is_whole { "as it was written" } else { "NOT as it was written" };
        let before = if first > 1 { " (those before are not there any more)" } else { "" };
        output::print(&format!(
            "{} lines from number {first}{before}, {word}; last seal {}",
            verdict.lines, verdict.last_seal
        ))?;
    }
    Ok(if is_whole { Exit::Fine } else { Exit::Found })
}

fn replay(policy: &std::path::Path, common: &Common) -> Result<Exit, Failure> {
    let config = common.config.load()?;
    let other = Config::load(Some(policy), [])?.policy;
    let forbids = |class: DataClass, zone: Zone| !other.allows(class, zone);
    let mut rows = Rows::default();
    let mut sent = 0_u64;
    let chain = read(&config, |entry, _| {
        if let Event::Sent(_) = entry.event {
            sent += 1;
        }
        rows.take(entry);
    })?;
    warn_of(&chain);
    let kept: Vec<Row> =
        rows.rows.into_iter().filter(|row| forbids(row.sent.class, row.sent.zone)).collect();
    print_rows(&kept, common.json, "nothing of what was sent")?;
    if !common.json {
        eprintln!("{} of {sent} would not have been sent by {}", kept.len(), policy.display());
    }
    Ok(if kept.is_empty() { Exit::Fine } else { Exit::Found })
}
