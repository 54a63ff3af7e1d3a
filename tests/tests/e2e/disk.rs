//! A disk that fills in the middle of everything, by bytes and by inodes: the device answers, refuses
//! to hold, keeps what it has, starts again while the disk is full, drains, and recovers by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent, start_agent_with};

/// A small file system of its own.
pub(super) struct SmallDisk {
    dir: tempfile::TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl SmallDisk {
    /// One with few bytes; `None` where it cannot be mounted.
    pub(super) fn of_bytes(what: &str, mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let mounted = succeeds(&mut mount);
        if !mounted {
            println!("LEFT OUT: {what} (cannot mount a small file system here)");
        }
        mounted.then_some(Self { dir, _image: None })
    }

    /// One with few inodes; `None` where it cannot be mounted.
    fn of_inodes(what: &str, mib: u64, inodes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(mib << 20).unwrap();
        let mut format = Command::new("mkfs.ext4");
        format.args(["-q", "-F", "-N", &inodes.to_string()]).arg(image.path());
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(image.path()).arg(dir.path());
        let mounted = succeeds(&mut format) && succeeds(&mut mount);
        if !mounted {
            println!("LEFT OUT: {what} (cannot make a small ext4 here)");
        }
        mounted.then_some(Self { dir, _image: Some(image) })
    }

    /// One in memory with few inodes; `None` where it cannot be mounted.
    fn of_few_files(what: &str, inodes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size=512m,nr_inodes={inodes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        let mounted = succeeds(&mut mount);
        if !mounted {
            println!("LEFT OUT: {what} (cannot mount a small file system here)");
        }
        mounted.then_some(Self { dir, _image: None })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes it read-only, or writable again.
    pub(super) fn remount(&self, how: &str) -> bool {
        succeeds(Command::new("mount").args(["-o", how]).arg(self.path()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

/// Something that fills the disk.
enum Ballast {
    Bytes,
    Inodes,
}

impl Ballast {
    fn place(disk: &SmallDisk) -> PathBuf {
        disk.path().join("ballast")
    }

    fn fill(&self, disk: &SmallDisk) {
        let place = Self::place(disk);
        std::fs::create_dir_all(&place).unwrap();
        match self {
            Self::Bytes => {
                let of = format!("of={}", place.join("bytes").display());
                drop(Command::new("dd").args(["if=/dev/zero", "bs=64k", &of]).output());
            }
            Self::Inodes => {
                for number in 0.. {
                    if std::fs::File::create(place.join(number.to_string())).is_err() {
                        break;
                    }
                }
            }
        }
    }

    fn clear(disk: &SmallDisk) {
        std::fs::remove_dir_all(Self::place(disk)).unwrap();
    }
}

fn wav() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

const ALWAYS: [(&str, &str); 1] = [("holdfast-escalate", "always")];

fn client(device: &Node) -> Client {
    Client::new(device.address("api").unwrap()).unwrap()
}

/// Holds until the device holds no more; returns what it holds.
async fn hold_until_refused(client: &Client) -> Vec<String> {
    let mut held = Vec::new();
    loop {
        let (status, text) = client.post("voice-commands", wav(), &ALWAYS).await.unwrap();
        if status.as_u16() != 202 {
            assert_eq!(status.as_u16(), 507, "{text}");
            return held;
        }
        let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
        held.push(reply["id"].as_str().unwrap().to_owned());
        assert!(held.len() < 2000, "a full disk is never noticed");
    }
}

async fn goes_through_it(disk: SmallDisk, ballast: Ballast) {
    let dir = tempfile::tempdir().unwrap();
    let site =
        Agent { name: SITE, bundles: bundles(&["voice-commands-large"]), site: None, broker: None };
    let site = start_agent(super::program(), dir.path(), &site).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    link.set(Weather::Cut);
    let state = disk.path().join("state").display().to_string();
    let url = Some(format!("http://{}", link.address()));
    let device =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: url, broker: None };
    let toml = device
        .toml(dir.path())
        .replace(&dir.path().join(DEVICE).display().to_string(), &state)
        .replace("segment_mib = 4", "segment_mib = 4\nheadroom_mib = 1\nheadroom_inodes = 4");
    let start = || start_agent_with(super::program(), dir.path(), DEVICE, &toml);
    let mut device = start().await.unwrap();
    let first = client(&device).ask("voice-commands", wav(), &ALWAYS).await.unwrap();
    ballast.fill(&disk);
    let mut held = hold_until_refused(&client(&device)).await;
    held.push(first.id);
    // Whoever did not insist gets the local answer.
    for terms in [&[][..], &[("idempotency-key", "on-a-full-disk")]] {
        let reply = client(&device).ask("voice-commands", wav(), terms).await.unwrap();
        assert_eq!(reply.state, "answered", "{terms:?}");
    }
    // It starts on the full disk too, with all that it has, killed or stopped.
    device.kill().unwrap();
    device = start().await.unwrap();
    assert_eq!(device.stop().await.unwrap().code(), Some(0), "{}", device.log_tail());
    device = start().await.unwrap();
    let client = client(&device);
    client.ask("voice-commands", wav(), &[("holdfast-escalate", "never")]).await.unwrap();
    for id in &held {
        let reply = client.look_up(id, Duration::ZERO).await.unwrap();
        assert_eq!(reply.state, "held", "{}", device.log_tail());
    }
    // Nobody has made room, and it drains.
    link.set(Weather::Up);
    for id in &held {
        let reply = client.settled(id, super::SOON).await.unwrap();
        assert_eq!(reply.state, "answered", "{}\n{}", reply.why(), device.log_tail());
    }
    // There is room again: it holds again by itself.
    link.set(Weather::Cut);
    Ballast::clear(&disk);
    let until = tokio::time::Instant::now() + super::SOON;
    loop {
        let (status, text) = client.post("voice-commands", wav(), &ALWAYS).await.unwrap();
        if status.as_u16() == 202 {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "it does not hold again: {text}");
        tokio::task::yield_now().await;
    }
    println!("FAULTS | full disk | {} held, all answered while it was full | 0 lost", held.len());
}

#[tokio::test]
async fn disk_without_bytes_is_gone_through() {
    if let Some(disk) = SmallDisk::of_bytes("a disk without bytes", 24) {
        goes_through_it(disk, Ballast::Bytes).await;
    }
}

#[tokio::test]
async fn disk_without_inodes_is_gone_through() {
    if let Some(disk) = SmallDisk::of_inodes("a disk without inodes", 64, 64) {
        goes_through_it(disk, Ballast::Inodes).await;
    }
}

#[test]
fn doctor_names_a_disk_without_inodes() {
    let Some(disk) = SmallDisk::of_few_files("doctor on a disk without inodes", 40) else { return };
    let dir = tempfile::tempdir().unwrap();
    let agent =
        Agent { name: DEVICE, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let state = disk.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let toml = agent
        .toml(dir.path())
        .replace(&dir.path().join(DEVICE).display().to_string(), &state.display().to_string())
        .replace("segment_mib = 4", "segment_mib = 4\nheadroom_mib = 1\nheadroom_inodes = 20");
    let config = dir.path().join(format!("{DEVICE}.toml"));
    std::fs::write(&config, toml).unwrap();
    let storage = || {
        let mut command = Command::new(super::program());
        let output = command.args(["agent", "doctor", "--json", "--config"]).arg(&config).output();
        let output = output.unwrap();
        let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let storage =
            found.into_iter().find(|each| each["check"].as_str().unwrap().starts_with("storage "));
        (output.status.code(), storage.unwrap())
    };
    let (code, found) = storage();
    assert_eq!((code, &found["health"]), (Some(0), &"fine".into()), "{found}");
    for number in 0..25 {
        std::fs::File::create(disk.path().join(format!("file-{number}"))).unwrap();
    }
    let (code, found) = storage();
    assert_eq!((code, &found["health"]), (Some(0), &"warn".into()), "{found}");
    assert!(found["found"].as_str().unwrap().contains("queue.headroom_inodes keeps 20"), "{found}");
    Ballast::Inodes.fill(&disk);
    let (code, found) = storage();
    assert_eq!((code, &found["health"]), (Some(1), &"fault".into()), "{found}");
    assert!(found["found"].as_str().unwrap().contains("no inode is left"), "{found}");
    assert!(found["advice"].as_str().unwrap().contains("remove some files"), "{found}");
}
