//! A small ext4 in a file, on a loop device, and copies of what the device has.
//!
//! **Invariant:** nothing here syncs the file system before it is copied.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{fs::SeekFrom, io::Errno};

/// A mounted image. The mount is gone when it is dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// Its folder in sysfs, where its writes are counted.
    sys: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{program}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    /// Whether this machine lets us make one, or why not.
    pub(crate) fn is_possible(dir: &Path) -> Result<(), String> {
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "--propagation", "private", "true"]);
        let output = probe.output().map_err(|error| format!("unshare: {error}"))?;
        if !output.status.success() {
            return Err("mounts of one's own are not allowed here".to_owned());
        }
        let image = dir.join("probe.img");
        format(&image, 32)?;
        let mount = dir.join("probe");
        let disk = Disk::mount(&image, &mount)?;
        drop(disk);
        Ok(())
    }

    /// Makes an image of so many MiB and mounts it.
    pub(crate) fn make(dir: &Path, name: &str, mib: u64) -> Self {
        let image = dir.join(name);
        format(&image, mib).unwrap();
        Disk::mount(&image, &image.with_extension("mounted")).unwrap()
    }

    /// Mounts an image at a folder, which is made.
    pub(crate) fn mount(image: &Path, mount: &Path) -> Result<Self, String> {
        fs::create_dir_all(mount).map_err(|error| error.to_string())?;
        let device = run("losetup", &["--find", "--show", text(image)])?;
        let mounted = run("mount", &["-t", "ext4", &device, text(mount)]);
        // Detached as soon as it is unmounted, or now if it could not be mounted.
        run("losetup", &["--detach", &device])?;
        mounted?;
        let name = Path::new(&device).file_name().unwrap_or_default().to_owned();
        let sys = Path::new("/sys/block").join(name);
        Ok(Disk { image: image.to_owned(), mount: mount.to_owned(), sys })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Copies what the device has at this moment to `to`, and mounts the copy. The device must not be
    /// written meanwhile: if it was (the file system's own threads finish what they had begun), the
    /// copy is made again. Returns how often.
    pub(crate) fn cut(&self, to: &Path) -> (Disk, u32) {
        for copies in 1..=50 {
            let before = self.writes();
            copy_sparse(&self.image, to).unwrap();
            if before.is_some() && self.writes() == before {
                return (Disk::mount(to, &to.with_extension("mounted")).unwrap(), copies);
            }
        }
        panic!("the device of {} never came to rest", self.image.display());
    }

    /// Writes that the device has finished; `None`: some are under way.
    fn writes(&self) -> Option<u64> {
        let text = fs::read_to_string(self.sys.join("stat")).unwrap();
        let numbers: Vec<u64> =
            text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[8] == 0).then_some(numbers[4])
    }
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
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
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
