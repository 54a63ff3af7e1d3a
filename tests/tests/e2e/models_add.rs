//! `models add`: a plain ONNX file becomes a bundle, or is refused for a reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::reference;
use serde_json::Value;

/// Runs the agent; its exit code, stdout and stderr.
fn agent(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(super::program()).arg("agent").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Adds a file as `to`; what it says of that.
fn added(file: &Path, to: &Path, more: &[&str]) -> Value {
    let (file, to) = (file.to_str().unwrap(), to.to_str().unwrap());
    let (code, said, told) =
        agent(&[&["models", "add", file, "--to", to, "--json"], more].concat());
    assert_eq!(code, 0, "{file}: {said}{told}");
    serde_json::from_str(&said).unwrap()
}

fn folder() -> Option<PathBuf> {
    reference::reference("adding the reference models")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_reference_model_becomes_a_first_bundle() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let silero = &["--shape", "input=1,576"][..];
    let image = "[input.image]";
    for (model, more, kind, wanted) in [
        ("vww_mobilenetv1_fp32", &[][..], "classification", &[image, "\"nhwc\"", "96"][..]),
        ("vww_mobilenetv1_int8_qdq", &[], "classification", &[image, "zero_point = -128"]),
        ("ic_resnet8_cifar10_int8_qdq", &[], "classification", &[image, "\"class-9\""]),
        ("mobilenet_v1_025_128_fp32", &[], "classification", &["[1, 128, 128, 3]", "1001"]),
        ("mobilenet_v2_100_224_int8_qdq", &[], "classification", &["int8-qdq", "dtype = \"u8\""]),
        ("kws_dscnn_fp32", &[], "classification", &["[input.tensor]", "\"batch\", 49, 10, 1"]),
        ("kws_dscnn_int8_qdq", &[], "classification", &["scale = 0.00390625", "dtype = \"i8\""]),
        ("kws_dscnn_ortq_int8_qdq", &[], "classification", &["meaning = \"probabilities\""]),
        ("intent_hashbow_fp32", &[], "classification", &["\"batch\", 512", "\"probabilities\""]),
        ("intent_hashbow_int8_qdq", &[], "classification", &["\"batch\", 512", "\"int8-qdq\""]),
        ("pump_state_fp32", &[], "classification", &["\"batch\", 128", "\"class-4\""]),
        ("pump_ae_fp32", &[], "reconstruction", &["of = \"window_norm\""]),
        ("ad_toycar_autoencoder_int8_qdq", &[], "reconstruction", &["scale = 0.36449847"]),
        ("face_ultralight_rfb_320_fp32", &[], "detection", &[image, "\"nchw\"", "a detector"]),
        (
            "face_ultralight_rfb_320_opset9_fp32",
            &[],
            "detection",
            &["[\"boxes\", \"scores\"]", "background = \"background\""],
        ),
        ("silero_vad_op18_ifless", silero, "regression", &["[[state]]", "[input.wave]", "16000"]),
        ("silero_vad_16k_op15", silero, "regression", &["[[state]]", "[2, 1, 128]", "constant"]),
    ] {
        let to = dir.path().join(model);
        let said = added(&reference.join(format!("models/{model}.onnx")), &to, more);
        let text = fs::read_to_string(to.join("bundle.toml")).unwrap();
        assert_eq!(said["kind"], kind, "{model}: {said}");
        for part in wanted {
            assert!(text.contains(part), "{model} has no {part}:\n{text}");
        }
        // It is TOML, it lists the copy as it is, and says what is to be written.
        let table: toml::Table = text.parse().unwrap();
        let file = &table["file"][0];
        let copy = fs::read(to.join(file["path"].as_str().unwrap())).unwrap();
        assert_eq!(file["bytes"].as_integer(), i64::try_from(copy.len()).ok(), "{model}");
        assert_eq!(said["serves"], false, "{model} has no sample");
        let to_write = texts(&said["to_write"]);
        assert!(to_write.iter().any(|what| what.contains("--sample")), "{model}: {to_write:?}");
        assert!(text.contains("# to write: "), "{model}");
    }
}

#[test]
fn shapes_that_the_file_leaves_open_are_asked_for() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("vad");
    let file = reference.join("models/silero_vad.onnx");
    let (file, to) = (file.to_str().unwrap(), to.to_str().unwrap());
    let (code, _, told) = agent(&["models", "add", file, "--to", to]);
    assert_eq!(code, 64, "{told}");
    assert!(told.contains("input f32 [") && told.contains("--shape NAME=1,2,3"), "{told}");
    let (code, _, told) = agent(&["models", "add", file, "--to", to, "--shape", "none=1,2"]);
    assert!(code == 64 && told.contains("the file has input, state, sr"), "{code} {told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_classifier_with_labels_and_a_sample_serves_right_away() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| reference.join(name).to_str().unwrap().to_owned();
    let (person, none) = (path("data/images/humans_0.jpg"), path("data/images/banana_0.jpg"));
    for (model, labels, sample, others) in [
        (
            "vww_mobilenetv1_int8_qdq",
            "vww_labels.txt",
            person.clone(),
            vec![(&person, "person"), (&none, "non_person")],
        ),
        (
            "mobilenet_v2_100_224_int8_qdq",
            "imagenet_labels_1001.txt",
            path("data/images/banana_0.jpg"),
            vec![],
        ),
    ] {
        let to = dir.path().join(model);
        let file = reference.join(format!("models/{model}.onnx"));
        let labels = path(&format!("models/{labels}"));
        let more = ["--labels", &labels, "--sample", &sample, "--task", "look"];
        let said = added(&file, &to, &more);
        assert_eq!(said["serves"], true, "{said}");
        assert_eq!(said["runtimes"][0]["problem"], Value::Null, "{said}");
        let bundles = to.to_str().unwrap();
        for (picture, label) in others {
            let (code, out, told) =
                agent(&["infer", "look", picture, "--bundles", bundles, "--json"]);
            assert_eq!(code, 0, "{out}{told}");
            let rows: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(rows[0]["label"], label, "{picture}: {rows}");
        }
        let (code, out, told) = agent(&["models", "bench", bundles, "--json"]);
        assert_eq!(code, 0, "{out}{told}");
    }
}

#[test]
fn numbers_are_a_sample_too() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(reference.join("models/golden/pump_state_fp32.in.window.bin")).unwrap();
    let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let sample = dir.path().join("window.json");
    fs::write(&sample, serde_json::to_string(&numbers).unwrap()).unwrap();
    let to = dir.path().join("pumps");
    let labels = reference.join("models/pump_state_labels.txt");
    let more = ["--labels", labels.to_str().unwrap(), "--sample", sample.to_str().unwrap()];
    let said = added(&reference.join("models/pump_state_fp32.onnx"), &to, &more);
    assert_eq!(said["serves"], true, "{said}");
    let golden = fs::read_to_string(to.join("golden.toml")).unwrap();
    let table: toml::Table = golden.parse().unwrap();
    let got = table["golden"][0]["output"].as_array().unwrap();
    let bytes = fs::read(reference.join("models/golden/pump_state_fp32.out.prob.bin")).unwrap();
    for (got, want) in got.iter().zip(bytes.as_chunks().0) {
        let want = f64::from(f32::from_le_bytes(*want));
        assert!((got.as_float().unwrap() - want).abs() < 1e-4, "{golden}");
    }
}

#[test]
fn broken_files_are_refused_and_leave_nothing() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(reference.join("models/pump_state_fp32.onnx")).unwrap();
    let unknown = {
        let mut bytes = good.clone();
        let is_softmax = |at: &usize| bytes[*at..].starts_with(b"Softmax");
        let places: Vec<usize> = (0..bytes.len()).filter(is_softmax).collect();
        places.iter().for_each(|at| bytes[at + 5] = b'u');
        bytes
    };
    let place = dir.path().join("bundles");
    fs::create_dir(&place).unwrap();
    for (name, bytes, why) in [
        ("empty", &[][..], "cannot be read as ONNX"),
        ("text", b"this is no model\n", "cannot be read as ONNX"),
        ("half", &good[..good.len() / 2], "cannot be read as ONNX"),
        ("unknown", &unknown[..], "unknown operators: Softmux"),
    ] {
        let file = dir.path().join(format!("{name}.onnx"));
        fs::write(&file, bytes).unwrap();
        let to = place.join(name);
        let (code, said, told) =
            agent(&["models", "add", file.to_str().unwrap(), "--to", to.to_str().unwrap()]);
        assert_eq!(code, 1, "{name}: {said}{told}");
        assert!(told.contains(why) && told.contains(&format!("{name}.onnx")), "{name}: {told}");
    }
    let missing = dir.path().join("none.onnx");
    let to = place.join("none");
    let (code, _, told) =
        agent(&["models", "add", missing.to_str().unwrap(), "--to", to.to_str().unwrap()]);
    assert_eq!(code, 69, "{told}");
    // A sample that is none.
    let (onnx, sample) = (dir.path().join("good.onnx"), dir.path().join("sample.json"));
    fs::write(&onnx, &good).unwrap();
    fs::write(&sample, "[1, 2, 3]").unwrap();
    let (onnx, sample) = (onnx.to_str().unwrap(), sample.to_str().unwrap());
    let to = to.to_str().unwrap();
    let (code, _, told) = agent(&["models", "add", onnx, "--to", to, "--sample", sample]);
    assert!(code == 1 && told.contains("the sample has no golden output"), "{code} {told}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is left");
}

#[test]
fn what_is_there_is_not_written_over() {
    let Some(reference) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = reference.join("models/pump_state_fp32.onnx");
    let config = dir.path().join("agent.toml");
    let state = dir.path().join("state");
    let bundles = dir.path().join("bundles");
    let text = format!(
        "[device]\nstate_dir = {:?}\n[models]\nbundles = [{:?}]\n",
        state.to_str().unwrap(),
        bundles.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let (file, config) = (file.to_str().unwrap(), config.to_str().unwrap());
    let args = ["models", "add", file, "--config", config];
    let (code, said, told) = agent(&args);
    assert_eq!(code, 0, "{said}{told}");
    assert!(said.contains("it cannot be served yet"), "{said}");
    // Beside the configured bundles, under a name made of the file's.
    let manifest = bundles.join("pump-state-fp32/bundle.toml");
    let before = fs::read(&manifest).unwrap();
    let (code, said, told) = agent(&args);
    assert_eq!(code, 74, "{said}{told}");
    assert!(told.contains("is there already; name another folder with --to"), "{told}");
    assert_eq!(fs::read(&manifest).unwrap(), before);
    assert_eq!(fs::read_dir(&bundles).unwrap().count(), 1);
}

/// A graph that ONNX Runtime alone may have.
fn of_microsoft() -> Vec<u8> {
    super::onnx::graph(&[1, 4], &[("com.microsoft.HardGelu", &["x"], &["y"], &[])], &[])
}

/// A library that ends the process that loads it ends a process that is not this command's.
#[test]
fn a_library_that_crashes_does_not_take_the_command_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libonnxruntime.so");
    let crash =
        "#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }";
    super::tuning::compile(crash, &library);
    let file = dir.path().join("gelu.onnx");
    fs::write(&file, of_microsoft()).unwrap();
    let place = dir.path().join("bundles");
    let to = place.join("gelu");
    let add = |onnxruntime: &str| {
        let mut command = Command::new(super::program());
        command.args(["agent", "models", "add"]).arg(&file).arg("--to").arg(&to);
        command.args(["--shape", "y=1,4", "--json"]);
        let output = command.env("HOLDFAST_MODELS__ONNXRUNTIME", onnxruntime).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), told)
    };
    let (code, said, told) = add(library.to_str().unwrap());
    assert_eq!(code, Some(1), "{said}{told}");
    assert!(
        told.contains("HardGelu") && told.contains("ended the process that tried it"),
        "{told}"
    );
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is left");
    // Without one it may be that another device has it: the bundle is written, and says so.
    let (code, said, told) = add("off");
    assert_eq!(code, Some(0), "{said}{told}");
    let added: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((added["serves"].as_bool(), to.join("bundle.toml").is_file()), (Some(false), true));
    assert!(
        added["runtimes"][1]["problem"].as_str().unwrap().contains("libonnxruntime"),
        "{added}"
    );
}

#[test]
fn as_many_labels_are_given_as_there_is_to_name() {
    let dir = tempfile::tempdir().unwrap();
    let (file, labels) = (dir.path().join("two.onnx"), dir.path().join("labels.txt"));
    let graph = super::onnx::graph(&[1, 4], &[("Softmax", &["x"], &["y"], &[("axis", 1)])], &[]);
    fs::write(&file, graph).unwrap();
    fs::write(&labels, "one\ntwo\nthree\n").unwrap();
    let to = dir.path().join("two");
    let (file, to, labels) =
        (file.to_str().unwrap(), to.to_str().unwrap(), labels.to_str().unwrap());
    let more = ["--shape", "y=1,4", "--labels", labels];
    let (code, _, told) = agent(&[&["models", "add", file, "--to", to], &more[..]].concat());
    assert!(code == 64 && told.contains("3 labels were given"), "{code} {told}");
    assert!(told.contains("has 4 to name") && !Path::new(to).exists(), "{told}");
}
