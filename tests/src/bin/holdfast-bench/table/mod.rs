//! The table of models and runtimes in the docs: speed, memory, agreement and accuracy of each pair, or
//! the reason why it cannot run.
//!
//! **Invariant:** each pair is measured in a process of its own, whose memory is that of nothing else.

mod part;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use holdfast_tests::agreement::CASES;
use holdfast_tests::{onnxruntime, reference};

use self::part::{Measured, Outcome};
pub(crate) use self::part::{Part, run_part};
use crate::machine::Others;
use crate::report;

const BEGIN: &str = "<!-- table:begin -->";
const END: &str = "<!-- table:end -->";
/// A pair is measured so often at most, until others leave the machine alone.
const TRIES: usize = 3;
/// Others may have so many seconds of a core meanwhile.
const OTHERS_S: f64 = 0.1;

/// Measures every pair and writes the table into the file.
pub(crate) fn refresh(file: &Path, date: &str, build: &str) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let folder = reference::reference("the table of models and runtimes");
    ensure!(folder.is_some(), "the table is of the reference models, which are not there");
    let mut runtimes = vec!["tract".to_owned()];
    for version in ["1.22", "1.23", "newest"] {
        let is_there = onnxruntime::found(version).is_some();
        ensure!(is_there, "the table is of ONNX Runtime {version} too: ./tests/run fetches it");
        runtimes.push(version.to_owned());
    }
    let mut lines = Vec::new();
    let mut versions = Vec::new();
    for case in &CASES {
        for runtime in &runtimes {
            let outcome = quiet(runtime, case.name)?;
            eprintln!("{} on {runtime}: {outcome:?}", case.name);
            if let Outcome::Measured(measured) = &outcome
                && !versions.contains(&measured.runtime)
            {
                versions.push(measured.runtime.clone());
            }
            lines.push(line(case.name, runtime, &outcome));
        }
    }
    let day = if date.is_empty() { String::new() } else { format!(", {date}") };
    let table = format!(
        "{}{day}. {}; one thread.\n\n| model | runtime | p50 | p99 | memory | off | agrees | right |\n\
         |---|---|---:|---:|---:|---:|---|---:|\n{}",
        report::machine(build),
        versions.join(", "),
        lines.concat().trim_end(),
    );
    let fresh = report::placed(&text, (BEGIN, END), &table)
        .with_context(|| format!("{} has not both of {BEGIN} and {END}", file.display()))?;
    std::fs::write(file, fresh).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{} holds {} pairs", file.display(), lines.len());
    Ok(())
}

/// A pair, measured while others leave the machine alone if that can be had.
fn quiet(runtime: &str, model: &str) -> anyhow::Result<Outcome> {
    let mut best: Option<(f64, Outcome)> = None;
    for _ in 0..TRIES {
        let others = Others::look()?;
        let outcome = in_own_process(runtime, model)?;
        let used = others.seconds()?;
        let is_settled = used <= OTHERS_S || matches!(outcome, Outcome::Refused(_));
        if best.as_ref().is_none_or(|(least, _)| used < *least) {
            best = Some((used, outcome));
        }
        if is_settled {
            break;
        }
    }
    best.map(|(_, outcome)| outcome).context("nothing was measured")
}

fn in_own_process(runtime: &str, model: &str) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["table-part", runtime, model]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{model} on {runtime}: {}\n{told}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{model} on {runtime}: {text}"))
}

fn line(model: &str, runtime: &str, outcome: &Outcome) -> String {
    let runtime = match runtime {
        "tract" => runtime.to_owned(),
        version => format!("ONNX Runtime {version}"),
    };
    let mut line = format!("| {model} | {runtime} |");
    let written = match outcome {
        Outcome::Measured(measured) => {
            let Measured { p50_us, p99_us, peak_kib, off, agrees, right, .. } = measured;
            let agrees = if *agrees { "yes" } else { "**no**" };
            let mib = peak_kib / 1024.0;
            let (p50, p99) = (time(*p50_us), time(*p99_us));
            let right = right.join(", ");
            writeln!(line, " {p50} | {p99} | {mib:.1} MiB | {off:.2} | {agrees} | {right} |")
        }
        Outcome::Refused(why) => {
            let why = why.replace('|', "/").replace('\n', " ");
            writeln!(line, " cannot run: {why} | | | | | |")
        }
    };
    written.expect("a String takes every text");
    line
}

fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.2} ms", us / 1000.0) }
}
