//! Cuts the power: starts the working process, stops it at a random moment, takes the device's
//! state, and starts the next one on it.

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
    disk::Disk,
    ledger::{Found, Ledger},
    number, this_program,
    writer::{DIR, Work},
};

/// Cuts on one disk; then a new one, so that looking stays quick.
const CHAIN: u64 = 10;
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

    /// Stops it in its tracks after a while, takes what the device has, and returns that with
    /// everything that was said before.
    fn cut_after(mut self, millis: u64, disk: &Disk, to: &Path) -> (Disk, Vec<String>) {
        sleep(Duration::from_millis(millis));
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
        self.wait_until_stopped();
        let (copy, _) = disk.cut(to);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (copy, self.lines.iter().collect())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
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
pub(crate) fn cut_repeatedly(work: Work) {
    let cuts = number("HOLDFAST_CUTS").unwrap_or(3);
    let seed = number("HOLDFAST_SEED").unwrap_or(1);
    let (mut accepted, mut ended) = (0, 0);
    let mut boots = Boots { dir: tempfile::tempdir().unwrap(), number: 0 };
    for first in (0..cuts).step_by(CHAIN as usize) {
        let dir = images();
        let ledger =
            cut_one_disk(work, dir.path(), first..cuts.min(first + CHAIN), seed, &mut boots);
        accepted += ledger.accepted;
        ended += ledger.ended;
    }
    println!(
        "FAULTS | power cut, {} | {cuts} cuts | {accepted} accepted, {ended} ended | 0 lost",
        work.name
    );
    assert!(accepted >= cuts && ended > 0, "{accepted} accepted, {ended} ended: it proves little");
}

fn cut_one_disk(work: Work, dir: &Path, cuts: Range<u64>, seed: u64, boots: &mut Boots) -> Ledger {
    let mut random = (seed ^ (cuts.start << 32)) | 1;
    let mut ledger = Ledger::default();
    let mut disk = Disk::make(dir, "disk.img", work.disk_mib);
    for cut in cuts {
        boots.next();
        let worker = Worker::start(&format!("work:{}", work.name), &disk, seed.wrapping_add(cut));
        let wrong = ledger.compare(&worker.look());
        assert!(wrong.is_empty(), "HOLDFAST_SEED={seed}, before cut {cut}: {wrong:#?}");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let to = dir.join(format!("cut-{cut}.img"));
        let (copy, said) = worker.cut_after(50 + random % 400, &disk, &to);
        said.iter().for_each(|line| ledger.take(line.trim_end()));
        disk = copy;
    }
    boots.next();
    let wrong = ledger.compare(&Worker::start("look:", &disk, seed).look());
    assert!(wrong.is_empty(), "HOLDFAST_SEED={seed}, after the last cut: {wrong:#?}");
    ledger
}

/// Who does not sync loses what it acknowledged, and is seen to; who does loses nothing.
pub(crate) fn control() {
    for how in ["synced", "careless"] {
        let dir = images();
        let disk = Disk::make(dir.path(), "disk.img", 64);
        let worker = Worker::start(&format!("plain:{how}"), &disk, 1);
        worker.look();
        let to = dir.path().join("cut.img");
        let (copy, said) = worker.cut_after(150, &disk, &to);
        let acknowledged: BTreeSet<&str> =
            said.iter().filter_map(|line| line.trim_end().strip_prefix("accepted ")).collect();
        let look = Worker::start("plain:look", &copy, 1);
        let lines: Vec<String> = look.lines.iter().collect();
        let there: BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.trim_end().strip_prefix("found ")?.split(' ').next())
            .collect();
        let lost = acknowledged.difference(&there).count();
        println!(
            "FAULTS | power cut, plain writer, {how} | 1 cut | {} accepted | {lost} lost",
            acknowledged.len()
        );
        assert!(acknowledged.len() > 100, "{how}: {} are too few", acknowledged.len());
        match how {
            "synced" => assert_eq!(lost, 0, "a harness that loses what is on the device"),
            // A busy kernel may have written some of it by itself.
            _ => assert!(lost > 0, "a harness that sees what is not on the device"),
        }
    }
}
