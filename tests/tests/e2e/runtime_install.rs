//! `holdfast-agent runtime`: the real library out of what it is published in, and everything that is not
//! fit refused without a trace.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use holdfast_tests::onnxruntime;
use holdfast_tests::reference;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

/// A device that has no ONNX Runtime but what is installed.
struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bundles = reference::bundles().join("voice-commands");
        let toml = format!(
            "[device]\nid = \"press-7\"\nstate_dir = {:?}\n[models]\nbundles = [{:?}]\n",
            dir.path().join("state").display().to_string(),
            bundles.display().to_string()
        );
        std::fs::write(dir.path().join("agent.toml"), toml).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(super::program());
        command.env_remove("ORT_DYLIB_PATH").arg("agent").args(args);
        let output = command.arg("--config").arg(self.path("agent.toml")).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Installs what is fit.
    fn install(&self, args: &[&str]) -> Value {
        let (code, said) = self.run(&[&["runtime", "install", "--json"], args].concat());
        assert_eq!(code, 0, "{args:?}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    /// Versions with what each is.
    fn list(&self) -> Vec<(String, String)> {
        let (code, said) = self.run(&["runtime", "ls", "--json"]);
        assert_eq!(code, 0, "{said}");
        let rows: Vec<Value> = serde_json::from_str(&said).unwrap();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(row, "version"), text(row, "role"))).collect()
    }

    /// What `doctor` says of ONNX Runtime.
    fn doctor(&self) -> String {
        let (_, said) = self.run(&["doctor", "--json"]);
        let findings: Vec<Value> = serde_json::from_str(&said).unwrap();
        let found = findings.iter().find(|finding| finding["check"] == "onnxruntime").unwrap();
        found["found"].as_str().unwrap().to_owned()
    }

    /// What lies in the folder of libraries, but for its lock.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("state/runtime")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".lock").collect()
    }
}

fn versions(rows: &[(String, String)]) -> Vec<(&str, &str)> {
    rows.iter().map(|(version, role)| (&**version, &**role)).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The file of a version's library and its bytes; `None`: it is left out.
fn library(version: &str) -> Option<(String, Vec<u8>)> {
    let folder = std::fs::read_dir(super::tuning::version(version)?).unwrap();
    let mut paths = folder.map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let path = paths.find(|path| name(path).starts_with("libonnxruntime.so.")).unwrap();
    Some((name(&path), std::fs::read(&path).unwrap()))
}

fn zip_of(to: &Path, files: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

enum Entry<'a> {
    File(&'a [u8]),
    Link(&'a str),
}

fn tgz_of(to: &Path, files: &[(&str, Entry<'_>)]) {
    let packed = GzEncoder::new(std::fs::File::create(to).unwrap(), Compression::fast());
    let mut tar = tar::Builder::new(packed);
    for (name, entry) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        // As it is, also where no honest program would put it.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        match entry {
            Entry::File(bytes) => {
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_link_name(target).unwrap();
                header.set_cksum();
                tar.append(&header, std::io::empty()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn the_wheel_for_this_board_is_known_checked_and_used() {
    let device = Device::new();
    let (code, said) = device.run(&["runtime", "install", "--json"]);
    assert_eq!(code, 0, "{said}");
    let advice: Value = serde_json::from_str(&said).unwrap();
    let Some(wheel) = advice["wheel"].as_str() else {
        return println!("LEFT OUT: the wheel for this board (none is published)");
    };
    let (_, said) = device.run(&["runtime", "install"]);
    let sha256 = advice["sha256"].as_str().unwrap();
    for part in [wheel, sha256, "pip download", "runtime install"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let Some(wheels) = onnxruntime::wheels() else { return };
    assert!(device.doctor().contains("`runtime install`"), "{}", device.doctor());
    let installed = device.install(&["--wheel-dir", wheels.to_str().unwrap()]);
    let version = advice["version"].as_str().unwrap();
    assert_eq!((&installed["version"], &installed["sha256"]), (&version.into(), &sha256.into()));
    assert_eq!(versions(&device.list()), [(version, "current")]);
    let found = device.doctor();
    assert!(found.starts_with(version) && found.contains("put in place"), "{found}");
    assert!(found.contains("state/runtime/"), "{found}");
    // The same again changes nothing.
    let again = wheels.join(wheel);
    assert_eq!(device.install(&[again.to_str().unwrap()]), installed_from(&installed, &again));
    assert_eq!(versions(&device.list()), [(version, "current")]);
    // One that only has its name is not taken for it.
    let false_one = device.path(wheel);
    let mut bytes = std::fs::read(&again).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&false_one, bytes).unwrap();
    let (code, said) = device.run(&["runtime", "install", false_one.to_str().unwrap()]);
    assert!(code == 1 && said.contains(sha256) && said.contains("must be"), "{code}: {said}");
    assert_eq!(versions(&device.list()), [(version, "current")]);
}

/// The same, from another file.
fn installed_from(installed: &Value, source: &Path) -> Value {
    let mut same = installed.clone();
    same["source"] = source.display().to_string().into();
    same
}

#[test]
fn what_is_not_fit_is_refused_and_leaves_nothing() {
    let Some((name, whole)) = library("1.23") else { return };
    let device = Device::new();
    let path = |name: &str| device.path(name);
    let inside = format!("onnxruntime/capi/{name}");
    let zeros = vec![0; 64 << 20];
    let mut foreign = whole.clone();
    foreign[18] ^= 0xff;
    std::fs::write(path("text.whl"), "not an archive").unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("cut.so"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("foreign.so"), &foreign).unwrap();
    zip_of(&path("foreign.whl"), &[(&inside, &foreign)]);
    zip_of(&path("nothing.zip"), &[("onnxruntime/LICENSE", b"MIT")]);
    zip_of(&path("twice.zip"), &[(&inside, &whole), (&format!("x/{name}"), &whole)]);
    zip_of(&path("slip.zip"), &[(&format!("../../{name}"), &whole)]);
    zip_of(&path("bomb.zip"), &[(&inside, &zeros)]);
    tgz_of(&path("slip.tgz"), &[(&format!("/usr/lib/{name}"), Entry::File(&whole))]);
    tgz_of(&path("bomb.tgz"), &[("passed-over", Entry::File(&zeros))]);
    tgz_of(&path("links.tgz"), &[("lib/libonnxruntime.so", Entry::Link("/etc/passwd"))]);
    zip_of(&path("good.whl"), &[(&inside, &whole)]);
    let good = std::fs::read(path("good.whl")).unwrap();
    std::fs::write(path("cut.whl"), &good[..good.len() / 2]).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(path("flipped.whl"), flipped).unwrap();
    let cases = [
        ("text.whl", "no wheel, .zip or .tgz"),
        ("empty", "no wheel, .zip or .tgz"),
        ("cut.so", "cut off"),
        ("foreign.so", "another machine"),
        ("foreign.whl", "another machine"),
        ("nothing.zip", "no libonnxruntime.so in it"),
        ("twice.zip", "twice"),
        ("slip.zip", "leads out of it"),
        ("slip.tgz", "leads out of it"),
        ("bomb.zip", "unpacks to more than"),
        ("bomb.tgz", "unpacks to more than"),
        ("links.tgz", "no libonnxruntime.so in it"),
        ("cut.whl", "damaged"),
        ("flipped.whl", "damaged"),
    ];
    for (file, why) in cases {
        let file = path(file);
        let (code, said) = device.run(&["runtime", "install", file.to_str().unwrap()]);
        assert!(code == 1 && said.contains(why), "{}: {code}, {said}", file.display());
        assert_eq!(device.left(), [""; 0], "{}", file.display());
    }
    let (code, said) = device.run(&["runtime", "install", "no-such-file.whl"]);
    assert!(code == 69 && said.contains("no-such-file.whl"), "{code}: {said}");
    let good = path("good.whl");
    let good = good.to_str().unwrap();
    let wrong = "0".repeat(64);
    let (code, said) = device.run(&["runtime", "install", good, "--sha256", &wrong]);
    assert!(code == 1 && said.contains(&wrong), "{code}: {said}");
    assert_eq!(device.run(&["runtime", "install", good, "--sha256", "abc"]).0, 64);
    assert_eq!(device.left(), [""; 0]);
    // And what was wrong with all of these is not in the good one.
    let installed = device.install(&[good]);
    assert_eq!(installed["sha256"], sha256(&std::fs::read(good).unwrap()));
}

#[test]
fn a_library_that_ends_its_process_is_not_put_in_place() {
    let device = Device::new();
    let library = device.path("libonnxruntime.so.9.9.9");
    super::tuning::compile(
        "#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }\n\
         void *OrtGetApiBase(void) { return 0; }\n",
        &library,
    );
    let (code, said) = device.run(&["runtime", "install", library.to_str().unwrap()]);
    assert!(code == 1 && said.contains("it ended the process that tried it"), "{code}: {said}");
    assert_eq!(device.left(), [""; 0]);
}

#[test]
fn archives_and_bare_libraries_follow_each_other_back_and_forth() {
    let (Some((old_name, old)), Some((new_name, new)), Some((newest_name, newest))) =
        (library("1.22"), library("1.23"), library("newest"))
    else {
        return;
    };
    let version = |name: &str| name.trim_start_matches("libonnxruntime.so.").to_owned();
    let (v_old, v_new, v_newest) = (version(&old_name), version(&new_name), version(&newest_name));
    let device = Device::new();
    assert!(device.run(&["runtime", "ls"]).1.contains("nothing was put in place"));
    assert_eq!(device.run(&["runtime", "rollback"]).0, 1);
    // As it is published: the library with links to it.
    let tgz = device.path("onnxruntime-linux.tgz");
    let lib = format!("onnxruntime-linux/lib/{old_name}");
    tgz_of(
        &tgz,
        &[
            ("onnxruntime-linux/LICENSE", Entry::File(b"MIT")),
            ("onnxruntime-linux/lib/libonnxruntime.so", Entry::Link("libonnxruntime.so.1")),
            (&lib, Entry::File(&old)),
            ("onnxruntime-linux/include/onnxruntime_c_api.h", Entry::File(b"// nobody needs it")),
        ],
    );
    let installed = device.install(&[tgz.to_str().unwrap()]);
    assert_eq!(installed["version"], *v_old, "{installed}");
    let folder = device.path("state/runtime").join(installed["name"].as_str().unwrap());
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    files.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let files: Vec<_> =
        files.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, ["LICENSE", "install.json", &old_name]);

    let bare = device.path(&new_name);
    std::fs::write(&bare, &new).unwrap();
    device.install(&[bare.to_str().unwrap()]);
    assert_eq!(versions(&device.list()), [(&*v_new, "current"), (&*v_old, "previous")]);
    assert!(device.doctor().starts_with(&v_new), "{}", device.doctor());
    let (code, said) = device.run(&["runtime", "rollback"]);
    assert!(code == 0 && said.contains(&v_old), "{said}");
    assert_eq!(versions(&device.list()), [(&*v_old, "current"), (&*v_new, "previous")]);
    assert!(device.doctor().starts_with(&v_old), "{}", device.doctor());
    // A third one: the one in service is kept, the other goes.
    let bare = device.path("libonnxruntime.so");
    std::fs::write(&bare, &newest).unwrap();
    device.install(&[bare.to_str().unwrap()]);
    assert_eq!(versions(&device.list()), [(&*v_newest, "current"), (&*v_old, "previous")]);
    let (code, said) = device.run(&["runtime", "remove"]);
    assert!(code == 0 && said.contains("is removed; none is in service now"), "{said}");
    assert!(said.contains(&v_old) && said.contains("`runtime rollback` puts it in"), "{said}");
    assert_eq!(versions(&device.list()), [(&*v_old, "previous")]);
    assert!(device.doctor().contains("not there"), "{}", device.doctor());
    assert_eq!(device.run(&["runtime", "rollback"]).0, 0);
    assert!(device.doctor().starts_with(&v_old), "{}", device.doctor());
    let (code, said) = device.run(&["runtime", "remove", "7.7.7"]);
    assert!(code == 1 && said.contains("7.7.7"), "{code}: {said}");
    let (code, said) = device.run(&["runtime", "remove", &v_old, "--json"]);
    let gone: Value = serde_json::from_str(&said).unwrap();
    assert!(code == 0 && gone["version"] == *v_old, "{gone}");
    assert!(gone["in_service"].is_null() && gone["previous"].is_null(), "{gone}");
    assert_eq!(device.left(), [""; 0]);
    // Elsewhere, it is not found by itself, and that is said.
    let to = device.path("elsewhere");
    let bare = bare.to_str().unwrap();
    let (code, said) = device.run(&["runtime", "install", bare, "--to", to.to_str().unwrap()]);
    assert!(code == 0 && said.contains("models.onnxruntime = "), "{said}");
    assert!(to.join("current").join("libonnxruntime.so").is_file());
}

/// A server of one file, good and bad.
struct Server {
    base: String,
    /// The first line of each request with its range.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn of(file: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let said = answer(stream, &file);
                seen.lock().unwrap().push(said);
            }
        });
        Self { base, asked }
    }
}

fn answer(mut stream: std::net::TcpStream, file: &[u8]) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
    let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let rest = &file[from.min(file.len())..];
    let whole = match range {
        Some(_) => format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
            file.len() - 1,
            file.len()
        ),
        None => "200 OK".to_owned(),
    };
    let (status, length, body) = match &*path {
        "/moved" => ("302 Found\r\nlocation: /wheel".to_owned(), 0, &[][..]),
        "/circle" => ("302 Found\r\nlocation: /circle".to_owned(), 0, &[][..]),
        "/wheel" => (whole, rest.len(), rest),
        // Cut off, until somebody asks for the rest.
        "/half" if range.is_none() => (whole, rest.len(), &rest[..rest.len() / 2]),
        "/half" => (whole, rest.len(), rest),
        "/endless" => ("200 OK".to_owned(), 2 << 30, &[][..]),
        _ => ("404 Not Found".to_owned(), 0, &[][..]),
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // Who asked may have heard enough.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
    format!("{path} {from}")
}

#[test]
fn a_url_is_fetched_whole_and_used_only_if_it_is_what_was_meant() {
    let Some((name, bytes)) = library("1.23") else { return };
    let device = Device::new();
    let wheel = device.path("made.whl");
    zip_of(&wheel, &[(&format!("onnxruntime/capi/{name}"), &bytes)]);
    let wheel = std::fs::read(&wheel).unwrap();
    let digest = sha256(&wheel);
    let half = wheel.len() / 2;
    let server = Server::of(wheel);
    let url = |path: &str| format!("{}{path}", server.base);
    let install = |path: &str, digest: &str| {
        device.run(&["runtime", "install", &url(path), "--sha256", digest])
    };
    let (code, said) = device.run(&["runtime", "install", &url("/wheel")]);
    assert!(code == 64 && said.contains("--sha256"), "{code}: {said}");
    for (path, code, why) in [
        ("/nothing", 69, "404"),
        ("/circle", 69, "redirects"),
        ("/endless", 69, "larger than"),
        ("/half", 69, "goes on behind it"),
    ] {
        let (got, said) = install(path, &digest);
        assert!(got == code && said.contains(why), "{path}: {got}, {said}");
        assert_eq!(device.list(), [], "{path}");
        // Nothing is kept but what the next call goes on behind.
        assert_eq!(
            device.left().len(),
            usize::from(path == "/half"),
            "{path}: {:?}",
            device.left()
        );
    }
    let (code, said) = device.run(&["runtime", "install", "https://", "--sha256", &digest]);
    assert!(code == 64 && said.contains("no URL"), "{code}: {said}");
    let (code, said) = install("/wheel", &"0".repeat(64));
    assert!(code == 1 && said.contains(&digest), "{code}: {said}");
    assert_eq!(device.list(), []);
    // What came before is gone on with.
    let (code, said) = install("/half", &digest);
    assert_eq!(code, 0, "{said}");
    let asked = server.asked.lock().unwrap().last().unwrap().clone();
    let from: usize = asked.strip_prefix("/half ").unwrap().parse().unwrap();
    assert!(0 < from && from <= half, "{asked}");
    let (code, said) = install("/moved", &digest);
    assert_eq!(code, 0, "{said}");
    let left = device.left();
    assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
    assert_eq!(device.list().len(), 1);
}
