use std::num::NonZeroUsize;
use std::path::Path;

use holdfast_models::Dtype;
use sha2::{Digest, Sha256};

use super::*;
use crate::engine::memory::Memory;
use crate::tune::candidates::TRACT;
use crate::tune::choice::Choice;
use crate::tune::library::{OnnxRuntimeConfig, runtime};

#[path = "../../../../models/tests/models/onnx.rs"]
#[allow(dead_code, clippy::cast_possible_truncation, reason = "what is written there is small")]
mod onnx;

/// A model that takes a place in a table of four, in rows, and fails on a row whose place is none.
fn bundle(dir: &Path) -> Bundle {
    let nodes: [onnx::Node<'_>; 3] = [
        ("Cast", &["x"], &["i"], &[("to", 7)]),
        ("Gather", &["table", "i"], &["g"], &[("axis", 0)]),
        ("Identity", &["g"], &["y"], &[]),
    ];
    let graph = onnx::graph(&[0, 1], &nodes, &[("table", &[4], &[10.0, 20.0, 30.0, 40.0])]);
    let golden = "[[golden]]\nsample = \"a.json\"\nvariant = \"only\"\noutput = [20.0]\n";
    let mut text = String::from(
        "format = 1\nname = \"table\"\nversion = \"1.0.0\"\ntask = \"look-up\"\nkind = \"tensor\"\n\
         description = \"for tests\"\nlicence = \"MIT\"\n[provenance]\ntrained_by = \"nobody\"\n\
         data = [\"none\"]\nseed = 0\ndate = \"2026-11-21\"\n[batching]\nmax_size = 8\n[[input]]\n\
         name = \"x\"\ndtype = \"f32\"\nshape = [\"batch\", 1]\n[input.tensor]\n[[output]]\n\
         name = \"y\"\ndtype = \"f32\"\nshape = [\"batch\", 1]\n[[variant]]\nname = \"only\"\n\
         precision = \"fp32\"\nfile = \"model.onnx\"\ntolerance = 0.0\naccuracy = 1.0\n[[sample]]\n\
         file = \"a.json\"\n",
    );
    for (path, bytes) in
        [("model.onnx", &*graph), ("a.json", b"[1]"), ("golden.toml", golden.as_bytes())]
    {
        std::fs::write(dir.join(path), bytes).unwrap();
        let (hash, length) = (hex::encode(Sha256::digest(bytes)), bytes.len());
        text += &format!("[[file]]\npath = {path:?}\nbytes = {length}\nsha256 = {hash:?}\n");
    }
    std::fs::write(dir.join("bundle.toml"), text).unwrap();
    Bundle::open(dir).unwrap()
}

fn runner(bundle: Bundle) -> Runner {
    let threads = NonZeroUsize::MIN;
    let choice = Choice { variant: "only".to_owned(), runtime: TRACT.to_owned(), threads };
    let tract = runtime(TRACT, &OnnxRuntimeConfig::Off).unwrap().into();
    Runner::load(Arc::new(bundle), Way::new(choice, tract, Memory::new(None), 0)).unwrap()
}

fn asks(place: f32) -> (Job, oneshot::Receiver<Answer>) {
    let mut input = Tensor::zeros(&[1, 1], Dtype::F32);
    input.of_mut::<f32>().unwrap()[0] = place;
    let (reply, answered) = oneshot::channel();
    (Job { ask: Ask::Tensors(vec![input]), reply }, answered)
}

fn number(answer: Answer) -> f32 {
    match answer.unwrap() {
        Given::Tensors(outputs) => outputs[0].of::<f32>().unwrap()[0],
        Given::Inference(_) => panic!("tensors were asked for"),
    }
}

#[test]
fn who_goes_together_is_one_run_and_is_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(bundle(dir.path()));
    let (mut jobs, mut answers): (Vec<_>, Vec<_>) = [0.0, 3.0].map(asks).into_iter().unzip();
    assert_eq!(runner.work(&mut jobs), 1);
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "not yet");
    runner.tell();
    let told = answers.into_iter().map(|mut answer| number(answer.try_recv().unwrap()));
    assert_eq!(told.collect::<Vec<_>>(), [10.0, 40.0]);
}

/// Each of a batch that failed is answered by itself, and waits for none of the others.
#[test]
fn after_a_batch_that_failed_each_is_told_as_soon_as_its_own_part_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(bundle(dir.path()));
    let (mut jobs, answers): (Vec<_>, Vec<_>) = [0.0, 99.0, 3.0].map(asks).into_iter().unzip();
    assert_eq!(runner.work(&mut jobs), 4, "the batch, and each by itself");
    let Ok([mut first, mut bad, mut last]) = <[_; 3]>::try_from(answers) else { unreachable!() };
    assert_eq!(number(first.try_recv().unwrap()), 10.0, "before the others are told");
    assert!(matches!(bad.try_recv().unwrap(), Err(EngineError::Model(_))));
    assert!(last.try_recv().is_err(), "who asks again at once finds the worker free");
    runner.tell();
    assert_eq!(number(last.try_recv().unwrap()), 40.0);
}

/// A model that is gone and does not come again is not tried for each of those who went together.
#[test]
fn who_is_turned_away_hears_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(bundle(dir.path()));
    runner.rest();
    assert!(!runner.is_ready());
    std::fs::write(dir.path().join("model.onnx"), b"no graph").unwrap();
    let why = runner.make_ready().unwrap_err();
    assert!(why.contains("it could not be loaded again") && why.contains("model.onnx"), "{why}");
    let (job, mut answer) = asks(1.0);
    runner.turn_away(job, &why);
    let error = answer.try_recv().unwrap().unwrap_err();
    assert!(matches!(&error, EngineError::NotReady { model, .. } if model == "table@1.0.0"));
}
