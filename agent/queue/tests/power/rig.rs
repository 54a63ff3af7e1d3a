//! Cuts the power: starts the working process, ends its work at a random moment, takes the device's
//! state, and starts the next one on it.
//!
//! Owns the processes and the order of what is done to them and to the disk.
//! **Invariant:** what is held to be acknowledged was heard of before the moment of the cut.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    ops::Range,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::sleep,
    time::Duration,
};

use super::{
    ROLE,
    disk::{Device, Disk, Rig},
    ledger::{Found, Ledger},
    logged::Remains,
    number, this_program,
    writer::{Care, DIR, Random, Work},
};

/// Cuts on one disk; then a new one, so that looking stays quick.
const CHAIN: u64 = 10;
/// Moments of which it is known what was acknowledged, among those at which a log can be cut.
const MARKS: u32 = 16;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One process on the disk.
struct Worker {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Worker {
    fn start(role: &str, disk: &Disk, seed: u64) -> Self {
        let (program, args) = this_program("works");
        let mut child = Command::new(program)
            .args(args)
            .env(ROLE, role)
            .env(DIR, disk.path())
            .env("HOLDFAST_SEED", seed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = mpsc::channel();
        // It never waits for us. What has no line's end was not said.
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if say.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Worker { child, lines }
    }

    /// Waits until it has said what is on the disk.
    fn look(&self) -> Found {
        let mut found = Found::default();
        for line in &self.lines {
            if !found.take(line.trim_end()) {
                break;
            }
        }
        assert!(found.is_whole, "it ended before it had said what is there");
        found
    }

    /// The signal is on its way when it was sent: on a busy machine a process works on for a while, and
    /// would acknowledge what the copy cannot have. Once one thread has stopped, no other comes back
    /// from the kernel; one that is in the middle of a sync may finish that.
    fn wait_until_stopped(&self) {
        let tasks = format!("/proc/{}/task", self.child.id());
        loop {
            let states: Vec<char> = fs::read_dir(&tasks)
                .unwrap()
                .filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok())
                .filter_map(|stat| stat.rsplit(") ").next()?.chars().next())
                .collect();
            let at_rest = states.iter().all(|state| matches!(state, 'T' | 'D'));
            if at_rest && states.contains(&'T') {
                return;
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Cuts the power of its disk: now, or, where the device's log has all moments, in the time that
    /// follows. Without chance no more is left than was flushed.
    fn cut(mut self, disk: Disk, to: &Path, late: Duration, chance: Option<Random>) -> Cut {
        let mut said = Vec::new();
        let (rig, left) = match &disk.device {
            Device::Loop(sys) => {
                let pid = self.child.id().to_string();
                assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
                self.wait_until_stopped();
                disk.copy(sys, to);
                self.kill();
                said.extend(self.lines.iter());
                (Rig::Copy, Remains { heard: said.len(), lost_writes: 0 })
            }
            Device::Logged(device) => {
                for _ in 0..MARKS {
                    said.extend(self.lines.try_iter());
                    device.mark(said.len());
                    sleep(late / MARKS);
                }
                self.kill();
                device.cut_off();
                said.extend(self.lines.iter());
                (Rig::Log, device.leave(to, chance))
            }
        };
        drop(disk);
        let late = said.split_off(left.heard);
        Cut { disk: Disk::mount(rig, to).unwrap(), said, late, lost_writes: left.lost_writes }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What is there after a cut.
struct Cut {
    disk: Disk,
    /// What the process had said by then.
    said: Vec<String>,
    /// What it said afterwards, or too near to it to tell.
    late: Vec<String>,
    /// Writes that the disk lost, or has in part.
    lost_writes: usize,
}

/// Starts the machine again: it has another boot id.
struct Boots {
    dir: tempfile::TempDir,
    number: u64,
}

impl Boots {
    fn next(&mut self) {
        if self.number > 0 {
            assert!(Command::new("umount").arg(BOOT_ID).status().unwrap().success());
        }
        self.number += 1;
        let file = self.dir.path().join("boot");
        fs::write(&file, format!("{:08}-0000-4000-8000-000000000000\n", self.number)).unwrap();
        let mount = Command::new("mount").arg("--bind").arg(&file).arg(BOOT_ID).status();
        assert!(mount.unwrap().success());
    }
}

/// Where the images lie: in memory where there is such a place, because cuts are many.
fn images() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

/// Cuts the power again and again, and holds what is found each time against what was said.
pub(crate) fn cut_repeatedly(rig: Rig, work: Work) {
    let cuts = number("HOLDFAST_CUTS").unwrap_or(3);
    let seed = number("HOLDFAST_SEED").unwrap_or(1);
    let (mut accepted, mut ended, mut lost_writes) = (0, 0, 0);
    let mut boots = Boots { dir: tempfile::tempdir().unwrap(), number: 0 };
    for first in (0..cuts).step_by(CHAIN as usize) {
        let dir = images();
        let cuts = first..cuts.min(first + CHAIN);
        let (ledger, lost) = cut_one_disk(rig, work, dir.path(), cuts, seed, &mut boots);
        accepted += ledger.accepted;
        ended += ledger.ended;
        lost_writes += lost;
    }
    let lost_writes = match rig {
        Rig::Copy => String::new(),
        Rig::Log => format!(" | {lost_writes} writes that were not flushed lost or torn"),
    };
    println!(
        "FAULTS | {}, {} | {cuts} cuts | {accepted} accepted, {ended} ended{lost_writes} | 0 lost",
        rig.name(),
        work.name
    );
    assert!(accepted >= cuts && ended > 0, "{accepted} accepted, {ended} ended: it proves little");
}

/// Returns what was said, and how many writes the disk lost.
fn cut_one_disk(
    rig: Rig,
    work: Work,
    dir: &Path,
    cuts: Range<u64>,
    seed: u64,
    boots: &mut Boots,
) -> (Ledger, usize) {
    let mut random = Random((seed ^ (cuts.start << 32)) | 1);
    let (mut ledger, mut lost_writes) = (Ledger::default(), 0);
    let mut disk = Disk::make(rig, dir, work.disk_mib);
    for cut in cuts {
        boots.next();
        let worker = Worker::start(&format!("work:{}", work.name), &disk, seed.wrapping_add(cut));
        let wrong = ledger.compare(&worker.look());
        assert!(wrong.is_empty(), "HOLDFAST_SEED={seed}, before cut {cut}: {wrong:#?}");
        let longest = number("HOLDFAST_CUT_MS").unwrap_or(400).max(2);
        sleep(Duration::from_millis(50 + random.next() % longest));
        let chance = Some(Random(random.next() | 1));
        let late = Duration::from_millis(random.next() % (longest / 2));
        let left = worker.cut(disk, &dir.join(format!("cut-{cut}.img")), late, chance);
        left.said.iter().for_each(|line| ledger.take(line.trim_end()));
        left.late.iter().for_each(|line| ledger.take_maybe(line.trim_end()));
        lost_writes += left.lost_writes;
        disk = left.disk;
    }
    boots.next();
    let wrong = ledger.compare(&Worker::start("look:", &disk, seed).look());
    assert!(wrong.is_empty(), "HOLDFAST_SEED={seed}, after the last cut: {wrong:#?}");
    (ledger, lost_writes)
}

/// Who does not sync loses what it acknowledged, and is seen to; who does loses nothing. Who writes to
/// the disk and does not flush it loses it where the disk has a cache.
pub(crate) fn control(rig: Rig) {
    for care in [Care::Synced, Care::Direct, Care::Careless] {
        let dir = images();
        let disk = Disk::make(rig, dir.path(), 64);
        let worker = Worker::start(&format!("plain:{}", care.name()), &disk, 1);
        worker.look();
        let mut said: Vec<String> = worker.lines.iter().take(200).collect();
        let cut = worker.cut(disk, &dir.path().join("cut.img"), Duration::ZERO, None);
        said.extend(cut.said);
        let acknowledged: BTreeSet<&str> =
            said.iter().filter_map(|line| line.trim_end().strip_prefix("accepted ")).collect();
        let look = Worker::start("plain:look", &cut.disk, 1);
        let lines: Vec<String> = look.lines.iter().collect();
        let there: BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.trim_end().strip_prefix("found ")?.split(' ').next())
            .collect();
        let lost = acknowledged.difference(&there).count();
        println!(
            "FAULTS | {}, plain writer, {} | 1 cut | {} accepted | {lost} lost",
            rig.name(),
            care.name(),
            acknowledged.len()
        );
        let name = care.name();
        match (care, rig) {
            (Care::Synced, _) | (Care::Direct, Rig::Copy) => {
                assert_eq!(lost, 0, "{name}: a harness that loses what is on the device");
            }
            // A busy kernel may have written some of it by itself.
            _ => assert!(lost > 0, "{name}: a harness that sees what is not on the device"),
        }
    }
}
