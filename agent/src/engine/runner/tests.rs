use std::num::NonZeroUsize;
use std::path::Path;

use holdfast_models::{Dtype, Outcome};
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

fn sends(body: &str) -> (Job, oneshot::Receiver<Answer>) {
    let (reply, answered) = oneshot::channel();
    let kind = Some(holdfast_models::MediaKind::Tensor);
    let media = Media::detect_for(body.as_bytes().to_vec(), None, kind).unwrap();
    (Job { ask: Ask::Media(media), reply }, answered)
}

fn given(answer: Answer) -> f32 {
    match answer {
        Ok(Given::Inference(Inference { outcome: Outcome::Tensors(named), .. })) => {
            named[0].1.of::<f32>().unwrap()[0]
        }
        other => panic!("{other:?}"),
    }
}

/// What cannot be read is told by itself; a run that fails has each of the others run alone.
#[test]
fn bodies_go_together_as_tensors_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(bundle(dir.path()));
    let (mut jobs, mut answers): (Vec<_>, Vec<_>) =
        ["[0]", "[\"no number\"]", "[3]"].map(sends).into_iter().unzip();
    assert!(jobs[0].goes_with(&jobs[2]) && !jobs[0].goes_with(&asks(0.0).0));
    assert_eq!(runner.work(&mut jobs), 1, "one run");
    let bad = answers.remove(1).try_recv().unwrap();
    assert!(matches!(&bad, Err(EngineError::Input(why)) if why.contains("number")), "{bad:?}");
    runner.tell();
    let told = answers.into_iter().map(|mut answer| given(answer.try_recv().unwrap()));
    assert_eq!(told.collect::<Vec<_>>(), [10.0, 40.0]);

    let (mut jobs, answers): (Vec<_>, Vec<_>) =
        ["[0]", "[99]", "[3]"].map(sends).into_iter().unzip();
    assert_eq!(runner.work(&mut jobs), 4, "the batch, and each by itself");
    runner.tell();
    let Ok([mut first, mut bad, mut last]) = <[_; 3]>::try_from(answers) else { unreachable!() };
    assert_eq!((given(first.try_recv().unwrap()), given(last.try_recv().unwrap())), (10.0, 40.0));
    assert!(matches!(bad.try_recv().unwrap(), Err(EngineError::Model(_))));
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
