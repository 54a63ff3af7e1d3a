//! Files that may not be read or written: permissions, and a file system that is read-only.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use holdfast_queue::{Queue, read_only};

use super::{
    copy_dir, entry,
    harm::files,
    open,
    queue_kit::{open as reopen, small},
};

const CHILD: &str = "HOLDFAST_DAMAGE_CHILD";
/// Nobody's user and group.
const NOBODY: u32 = 65534;

/// Opens a queue as somebody who may not do everything, and says how that went; does nothing by itself.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    match Queue::open(Path::new(&dir), small()) {
        Ok((queue, report)) => {
            println!("opened {}", report.held);
            drop(queue);
        }
        Err(refused) => {
            let mut text = refused.to_string();
            let mut cause = std::error::Error::source(&refused);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            println!("refused {text}");
        }
    }
}

/// What the child said of a queue; `None`: it could not be run as nobody.
fn as_nobody(dir: &Path) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "denied::child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, dir).uid(NOBODY).gid(NOBODY);
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find_map(|line| {
        let at = line.find("opened ").or_else(|| line.find("refused "))?;
        line.get(at..).map(str::to_owned)
    });
    Some(line.unwrap_or_else(|| panic!("it said nothing: {said}")))
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for found in fs::read_dir(path).unwrap() {
            give_to_nobody(&found.unwrap().path());
        }
    }
}

#[tokio::test]
async fn files_that_may_not_be_used_are_named_or_done_without() {
    // Nobody must be able to come here.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let pristine = dir.path().join("queue");
    let (queue, _) = open(&pristine);
    for body in [&[1; 100][..], &[2; 200_000], &[3; 200_000]] {
        queue.accept(entry(5, 1, body)).await.unwrap();
    }
    queue.close().await.unwrap();
    if chown(&pristine, Some(NOBODY), Some(NOBODY)).is_err() {
        println!("LEFT OUT: files without permissions (only root can give files away)");
        return;
    }
    give_to_nobody(&pristine);
    let Some(said) = as_nobody(&pristine) else {
        println!("LEFT OUT: files without permissions (nobody cannot run the tests here)");
        return;
    };
    assert_eq!(said, "opened 3");

    let mut paths = files(&pristine);
    paths.extend([pristine.join("journal"), pristine.join("index"), pristine.clone()]);
    for path in paths {
        for mode in [0o000, 0o444] {
            let name = path.strip_prefix(&pristine).unwrap().to_owned();
            let copy = dir.path().join("copy");
            copy_dir(&pristine, &copy);
            give_to_nobody(&copy);
            let path = copy.join(&name);
            let mode = if path.is_dir() && mode == 0o444 { 0o555 } else { mode };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let said = as_nobody(&copy).unwrap();
            let case = format!("{} {mode:o}: {said}", name.display());
            match said.strip_prefix("refused ") {
                None => assert_eq!(said, "opened 3", "{case}"),
                Some(why) => {
                    let text = name.to_string_lossy().into_owned();
                    let is_named =
                        why.contains(&*text) || why.contains(&copy.display().to_string());
                    assert!(is_named && why.contains("ermission denied"), "{case}");
                    assert!(why.contains("give the agent's user"), "{case}");
                }
            }
            // Nothing was harmed: with its permissions back, it is all there.
            for path in [&copy, &path, &copy.join("journal"), &copy.join("index")] {
                // The index may have been set aside, the mark of a good close used.
                drop(fs::set_permissions(path, Permissions::from_mode(0o700)));
            }
            let (queue, report) = reopen(&copy);
            assert_eq!(report.held, 3, "{case}: {report:?}");
            queue.close().await.unwrap();
            fs::remove_dir_all(&copy).unwrap();
        }
    }
}

#[tokio::test]
async fn on_a_read_only_file_system_it_says_so_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let done = Command::new("mount").args(args).arg(dir.path()).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"]) {
        println!("LEFT OUT: a read-only file system (mounting a tmpfs is not allowed here)");
        return;
    }
    let at = dir.path().join("queue");
    let (queue, _) = open(&at);
    queue.accept(entry(5, 1, b"kept")).await.unwrap();
    queue.close().await.unwrap();
    // The queue's threads may take a moment to let go of their files.
    let mut is_read_only = false;
    for _ in 0..500 {
        is_read_only = mount(&["-o", "remount,ro"]);
        if is_read_only {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let refused = Queue::open(&at, small()).map(|(_, report)| report);
    let looked = read_only(&at).map(|(stopped, report)| {
        (report.held, stopped.list(None, 9).unwrap().len(), report.damaged)
    });
    assert!(mount(&["-o", "remount,rw"]));
    let (queue, report) = open(&at);
    queue.close().await.unwrap();
    drop(queue);
    assert!(Command::new("umount").arg("-l").arg(dir.path()).status().unwrap().success());
    assert!(is_read_only);
    let refused = refused.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(refused.to_string().contains("mount it writable"), "{refused}: {cause}");
    assert!(refused.to_string().contains("/queue"), "{refused}");
    assert_eq!(looked.unwrap(), (1, 1, 0));
    assert_eq!((report.held, report.rebuilt), (1, None), "nothing was changed meanwhile");
}
