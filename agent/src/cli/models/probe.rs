//! `holdfast-agent models probe`: one thing tried in this process, which may not survive it.
//!
//! **Invariant:** only a process that this program started for it runs this, and reads its report.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::{Exit, Failure, output};
use crate::tune::choice::Choice;
use crate::tune::library::OnnxRuntimeConfig;
use crate::tune::{graph, probe};

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Load the library
    Library(Library),
    /// Load a variant on tract
    Load {
        #[arg(long)]
        bundle: PathBuf,
        #[arg(long)]
        variant: String,
    },
    /// Measure one way to run a bundle
    Choice {
        #[arg(long)]
        bundle: PathBuf,
        #[arg(long)]
        variant: String,
        #[arg(long)]
        runtime: String,
        #[arg(long)]
        threads: NonZeroUsize,
        #[command(flatten)]
        library: Library,
    },
    /// Load a graph
    Graph {
        #[arg(long)]
        file: PathBuf,
        #[arg(long)]
        tensors: String,
        #[arg(long)]
        runtime: String,
        #[command(flatten)]
        library: Library,
    },
    /// Make the goldens of a variant
    Goldens {
        #[arg(long)]
        bundle: PathBuf,
        #[arg(long)]
        variant: String,
        #[arg(long)]
        runtime: String,
        #[arg(long)]
        to: PathBuf,
        #[command(flatten)]
        library: Library,
    },
}

/// Which library is meant.
#[derive(Debug, Args)]
struct Library {
    #[arg(long, conflicts_with = "onnxruntime")]
    installed: Option<PathBuf>,
    #[arg(long, default_value = "auto")]
    onnxruntime: String,
}

impl Library {
    fn config(self) -> OnnxRuntimeConfig {
        OnnxRuntimeConfig::parse(&self.onnxruntime).or_installed(self.installed)
    }
}

pub(super) fn probe(args: ProbeArgs) -> Result<Exit, Failure> {
    match args.what {
        What::Library(library) => report(Ok(probe::look(&library.config()))),
        What::Load { bundle, variant } => report(probe::load_first(&bundle, &variant)),
        What::Choice { bundle, variant, runtime, threads, library } => {
            let choice = Choice { variant, runtime, threads };
            report(probe::measure(&bundle, &choice, &library.config()))
        }
        What::Graph { file, tensors, runtime, library } => {
            report(graph::try_graph(&file, &tensors, &runtime, &library.config()))
        }
        What::Goldens { bundle, variant, runtime, to, library } => {
            report(graph::make_goldens(&bundle, (&variant, &runtime), &library.config(), &to))
        }
    }
}

fn report<T: Serialize>(found: Result<T, String>) -> Result<Exit, Failure> {
    let failed = |why| Failure::new(Exit::Found, why);
    let found = found.map_err(failed)?;
    let report = probe::report(&found).map_err(|error| failed(error.to_string()))?;
    output::print(&report).map(|()| Exit::Fine)
}
