//! What else the machine does while something is measured, and what this process takes of it.
//!
//! **Invariant:** the kernel's own work for the network counts as nobody's.

use std::collections::HashMap;

use anyhow::Context;

/// The kernel counts time in hundredths of a second.
const TICKS_PER_S: f64 = 100.0;

/// A process, and all that came of it.
pub(crate) fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let all = all()?;
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(all.iter().filter(|(_, own)| own.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(tree)
}

struct Own {
    parent: u32,
    /// Time on a core, in ticks.
    ticks: u64,
}

/// Every process of the machine.
fn all() -> anyhow::Result<HashMap<u32, Own>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may be gone by now.
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name is in brackets, and may have blanks and brackets itself.
        let Some((_, rest)) = text.rsplit_once(") ") else { continue };
        let number = |at: usize| rest.split(' ').nth(at).and_then(|text| text.parse::<u64>().ok());
        let parent = number(1).and_then(|pid| u32::try_from(pid).ok());
        // In user and in system, of its own and of its children that ended.
        let ticks = (11..=14).map(number).sum::<Option<u64>>();
        if let (Some(parent), Some(ticks)) = (parent, ticks) {
            found.insert(pid, Own { parent, ticks });
        }
    }
    Ok(found)
}

/// Time on the cores that went to others than this program and what it started, from one look to the
/// next.
pub(crate) struct Others {
    all: u64,
    own: u64,
}

impl Others {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
        // user, nice, system, (idle, iowait, irq, softirq,) steal
        let all = [0, 1, 2, 7].iter().filter_map(|at| fields.get(*at)).sum();
        let processes = self::all()?;
        let own = tree(std::process::id())?;
        let own = own.iter().filter_map(|pid| processes.get(pid)).map(|own| own.ticks).sum();
        Ok(Self { all, own })
    }

    /// Seconds on a core since then.
    pub(crate) fn seconds(&self) -> anyhow::Result<f64> {
        let now = Self::look()?;
        let all = now.all.saturating_sub(self.all);
        let own = now.own.saturating_sub(self.own);
        #[expect(clippy::cast_precision_loss, reason = "some seconds")]
        Ok(all.saturating_sub(own) as f64 / TICKS_PER_S)
    }
}

/// A number of KiB out of this process's own status.
pub(crate) fn status_kib(key: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("this process has no {key}"))?.parse()?)
}
