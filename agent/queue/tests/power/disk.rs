//! A small ext4 in a file, on a loop device or on one that logs its writes, and copies of what the
//! device has.
//!
//! Owns the image, its device and its mount.
//! **Invariant:** nothing here syncs the file system before it is copied.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{fs::SeekFrom, io::Errno};

use super::logged::{self, Logged};

/// How the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rig {
    /// What a loop device has is copied.
    Copy,
    /// A disk with a cache: what was written and not flushed is lost in parts.
    Log,
}

impl Rig {
    /// What it is called in what is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rig::Copy => "power cut",
            Rig::Log => "power cut with dm-log-writes",
        }
    }
}

/// A mounted image. The mount is gone when it is dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    pub(crate) device: Device,
}

/// What is under the file system.
pub(crate) enum Device {
    /// Its folder in sysfs, where its writes are counted.
    Loop(PathBuf),
    Logged(Logged),
}

/// A loop device; detached when it is dropped and nobody uses it any more.
pub(crate) struct Loop(String);

impl Loop {
    pub(crate) fn over(file: &Path) -> Result<Self, String> {
        run("losetup", &["--find", "--show", text(file)]).map(Loop)
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(run("losetup", &["--detach", &self.0]));
    }
}

/// Runs a program; what it printed, or what it complained of.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{program}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    /// Whether this machine lets us make one, or why not.
    pub(crate) fn is_possible(rig: Rig, dir: &Path) -> Result<(), String> {
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "--propagation", "private", "true"]);
        let output = probe.output().map_err(|error| format!("unshare: {error}"))?;
        if !output.status.success() {
            return Err("mounts of one's own are not allowed here".to_owned());
        }
        if rig == Rig::Log {
            logged::is_possible()?;
        }
        let image = dir.join("probe.img");
        format(&image, 32)?;
        let disk = Disk::mount(rig, &image)?;
        drop(disk);
        Ok(())
    }

    /// Makes an image of so many MiB and mounts it.
    pub(crate) fn make(rig: Rig, dir: &Path, mib: u64) -> Self {
        let image = dir.join("disk.img");
        format(&image, mib).unwrap();
        Disk::mount(rig, &image).unwrap()
    }

    /// Mounts an image beside itself.
    pub(crate) fn mount(rig: Rig, image: &Path) -> Result<Self, String> {
        let mount = image.with_extension("mounted");
        fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let mount_ext4 = |device: &str| run("mount", &["-t", "ext4", device, text(&mount)]);
        let device = match rig {
            Rig::Copy => {
                let device = Loop::over(image)?;
                mount_ext4(device.path())?;
                let name = Path::new(device.path()).file_name().unwrap_or_default();
                Device::Loop(Path::new("/sys/block").join(name))
            }
            Rig::Log => {
                let device = Logged::over(image)?;
                mount_ext4(&device.path()?)?;
                Device::Logged(device)
            }
        };
        Ok(Disk { image: image.to_owned(), mount, device })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Copies what a loop device has at this moment to `to`. The device must not be written meanwhile:
    /// if it was (the file system's own threads finish what they had begun), the copy is made again.
    pub(crate) fn copy(&self, sys: &Path, to: &Path) {
        for _ in 1..=50 {
            let before = writes(sys);
            copy_sparse(&self.image, to).unwrap();
            if before.is_some() && writes(sys) == before {
                return;
            }
        }
        panic!("the device of {} never came to rest", self.image.display());
    }
}

/// Writes that a device has finished; `None`: some are under way.
fn writes(sys: &Path) -> Option<u64> {
    let text = fs::read_to_string(sys.join("stat")).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[8] == 0).then_some(numbers[4])
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(why) = run("umount", &[text(&self.mount)]) {
            // Somebody may still be dying in it.
            println!("{why}; detached when it is free");
            drop(run("umount", &["--lazy", text(&self.mount)]));
        }
        drop(fs::remove_file(&self.image));
    }
}

fn format(image: &Path, mib: u64) -> Result<(), String> {
    let file = File::create(image).map_err(|error| error.to_string())?;
    file.set_len(mib << 20).map_err(|error| error.to_string())?;
    // The tables are written now, and not by a thread of the file system later.
    let whole = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    run("mkfs.ext4", &["-q", "-F", "-E", whole, "-J", "size=4", text(image)]).map(drop)
}

/// Copies the parts of a file that are there, and leaves its holes holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let part = &mut block[..((end - at) as usize).min(1 << 20)];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += part.len() as u64;
        }
    }
}
