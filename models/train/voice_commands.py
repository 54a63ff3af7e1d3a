#!/usr/bin/env python3
"""Trains, calibrates, quantises and packs the bundles voice-commands and voice-commands-large, or measures them.

    python models/train/voice_commands.py --data DIR/kws_train --test DIR/kws_wav --out models/bundles
    python models/train/voice_commands.py --evaluate --data DIR/kws_train --test DIR/kws_wav --out models/bundles

`--data` is a folder of 16 kHz recordings with labels.csv (file, class_name); `--test` one like it whose recordings are
only measured. espeak-ng must be installed. Two processes of one thread each; no GPU.

Invariant: nothing is trained, chosen or calibrated on the test recordings.
"""

import argparse
import datetime
import os
import pathlib
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SEED = 17
VERSION = "1.0.0"
CLASSES = 16

SMALL = [
    ("conv", 40, (5, 5), (2, 2)),
    ("ds", 64, (2, 2)),
    ("ds", 64, (1, 1)),
    ("ds", 64, (1, 1)),
    ("ds", 128, (2, 2)),
    ("ds", 128, (1, 1)),
    ("ds", 128, (1, 1)),
    ("band",),
    ("pool",),
    ("dense", CLASSES),
]
RESIDUAL = [
    ("conv", 32, (5, 5), (2, 2)),
    ("res", 32, (1, 1)),
    ("res", 64, (2, 2)),
    ("res", 64, (1, 1)),
    ("res", 128, (2, 2)),
    ("band",),
    ("pool",),
    ("dense", CLASSES),
]
WIDE = [
    ("conv", 48, (5, 5), (2, 2)),
    ("res", 48, (1, 1)),
    ("res", 96, (2, 2)),
    ("res", 96, (1, 1)),
    ("res", 128, (2, 2)),
    ("band",),
    ("pool",),
    ("dense", CLASSES),
]
# name: blocks, seed, steps, (real, synthetic, silence) clips a step, masks a clip, learning rate
RUNS = {
    "residual-a": (RESIDUAL, SEED, 2600, (60, 28, 8), 2, 3e-3),
    "residual-b": (RESIDUAL, SEED + 1, 2600, (60, 28, 8), 2, 3e-3),
    "residual-c": (WIDE, SEED + 2, 2600, (60, 28, 8), 2, 3e-3),
    "small": (SMALL, SEED + 3, 3600, (60, 28, 8), 1, 4e-3),
}
MEMBERS = ["residual-a", "residual-b", "residual-c"]
DESCRIPTIONS = {
    "voice-commands": "Ten spoken command words and four worksite words within one second of sound, small enough for any board.",
    "voice-commands-large": "The words of voice-commands, heard by three larger networks together; for the machine at the site.",
}


def one_thread():
    """Keeps TensorFlow quiet and on one thread; call before its first use in a process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def run_one(name, cache, scale, teachers):
    """Trains one network in a process of its own; returns its state."""
    one_thread()
    from voice import dataset, network, trainer

    pool, held = dataset.prepared(None, SEED, scale, cache)
    wise = []
    for blocks, state in teachers:
        wise.append(network.Network(blocks, 0, half=network.bf16_is_quick()))
        wise[-1].load(state)
    blocks, seed, steps, shares, masks, rate = RUNS[name]
    trained = trainer.train(
        name,
        blocks,
        pool,
        held,
        seed=seed,
        steps=max(20, int(steps * scale)),
        shares=shares,
        masks=masks,
        rate=rate,
        teacher=wise,
        dropout=0.0 if name == "small" else 0.2,
        half=name != "small" and network.bf16_is_quick(),
    )
    return trained.state()


def train(data, cache, scale, states):
    """{name: (blocks, state)} of every network; those in `states` (a folder) are not trained again."""
    import pickle

    from voice import dataset

    dataset.prepared(data, SEED, min(1.0, scale), cache)
    trained = {}

    def keep(name, state):
        trained[name] = (RUNS[name][0], state)
        (states / f"{name}.pkl").write_bytes(pickle.dumps(trained[name]))

    for name in RUNS:
        if (states / f"{name}.pkl").exists():
            trained[name] = pickle.loads((states / f"{name}.pkl").read_bytes())
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        jobs = {n: processes.submit(run_one, n, cache, scale, []) for n in MEMBERS if n not in trained}
        for name, job in jobs.items():
            keep(name, job.result())
        if "small" not in trained:
            keep("small", processes.submit(run_one, "small", cache, scale, [trained[m] for m in MEMBERS]).result())
    return trained


def parts(blocks, state):
    """How many numbers of a network the exported graph carries."""
    from voice import network

    return network.Network(blocks, 0).parameters()


def pack(trained, cache, data, test, out, minutes):
    """Both bundles' folders from the trained networks."""
    import numpy as np

    from voice import card, dataset, network, packing, speech

    pool, held = dataset.prepared(data, SEED, 1.0, cache)
    rng = np.random.default_rng(SEED)
    near = [held["noisy"][0][::3], held["voices"][0][::4]]
    mixed = [part[0][rng.integers(len(part[0]), size=n)] for part, n in ((pool.real, 200), (pool.synthetic, 120), (pool.silence, 60))]
    calibration = np.concatenate([x.astype(np.float32) for x in mixed])
    members = {"voice-commands": ["small"], "voice-commands-large": MEMBERS}
    sides = {}
    for name, networks in members.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        network.export([trained[n] for n in networks], CLASSES, folder / packing.FP32)
        packing.quantise(folder / packing.FP32, folder / packing.INT8, calibration, np.concatenate(near))
        scores = [packing.logits(folder / packing.INT8, held[s][0]) for s in ("speakers", "noisy")]
        labels = np.concatenate([held[s][1] for s in ("speakers", "noisy")])
        sides[name] = (folder, *packing.calibrate(np.concatenate(scores), labels))
        print(f"{name}: temperature {sides[name][1]}, threshold {sides[name][2]}", flush=True)
    chosen = packing.choose_samples(sides["voice-commands"], sides["voice-commands-large"])
    rows = speech.recordings(data)
    kept, apart = speech.split(rows)
    sets = packing.test_sets(data, test)
    for name, (folder, temperature, threshold) in sides.items():
        packing.write_samples(folder, chosen)
        packing.write_golden(folder, chosen)
        facts = {
            "name": name,
            "version": VERSION,
            "description": DESCRIPTIONS[name],
            "temperature": temperature,
            "threshold": threshold,
            "tolerance": {"int8": 0.5, "fp32": 0.001},
            "chosen": chosen,
            "seed": SEED,
            "date": datetime.date.today().isoformat(),
        }
        packing.write_manifest(folder, accuracy={"int8": 0.0, "fp32": 0.0}, **facts)
        results = card.measure(folder, sets)
        shown = results.get("recordings", results["speakers"])
        packing.write_manifest(folder, accuracy={v: round(r["accuracy"], 4) for v, r in shown.items()}, **facts)
        small = name == "voice-commands"
        said = {r[2] for r in kept if r[1] != speech.SILENCE}, {r[2] for r in apart if r[1] != speech.SILENCE}
        card.write(folder, results, {
            "network": (
                "A depthwise-separable convolutional network on 49 x 40 log-mel features, taught by the networks of "
                "voice-commands-large (distillation) beside the labels."
                if small
                else "Three residual convolutional networks on 49 x 40 log-mel features; the "
                "logits are their mean, in one graph."
            ),
            "parameters": sum(parts(*trained[n]) for n in members[name]),
            "train_clips": len(kept),
            "train_speakers": len(said[0]),
            "held_clips": len(apart),
            "held_speakers": len(said[1]),
            "voices": len(speech.variants()[0]),
            "held_voices": len(speech.variants()[1]),
            "minutes": minutes,
        })
        print(f"{name}\n{card.table(results)}", flush=True)


def evaluate(out, data, test):
    """Measures the committed bundles; 1 when a variant is under the accuracy that its bundle.toml states."""
    import numpy as np
    import soundfile

    from voice import card, frontend, packing, speech

    sets = packing.test_sets(data, test)
    bad = 0
    for name in DESCRIPTIONS:
        folder = out / name
        manifest = tomllib.loads((folder / "bundle.toml").read_text())
        waves = [soundfile.read(folder / s["file"], dtype="float32")[0] for s in manifest["sample"]]
        x = np.stack([frontend.features(w) for w in waves])
        y = np.array([speech.LABELS.index(s["label"]) for s in manifest["sample"]])
        print(f"\n{name}")
        for variant in manifest["variant"]:
            guess = packing.logits(folder / variant["file"], x).argmax(-1)
            print(f"committed samples, {variant['name']}: {int(np.sum(guess == y))}/{len(y)} right")
        results = card.measure(folder, sets)
        print(card.table(results))
        for variant in manifest["variant"] if "recordings" in results else []:
            got = results["recordings"][variant["name"]]["accuracy"]
            if got + 1e-4 < variant["accuracy"]:
                bad += 1
                print(f"{name} {variant['name']}: accuracy {got:.4f}, bundle.toml says {variant['accuracy']}")
    return 1 if bad else 0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder of training recordings with labels.csv")
    parser.add_argument("--test", type=pathlib.Path, help="folder of test recordings; default: kws_wav beside --data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/bundles"), help="folder of the bundles")
    parser.add_argument("--work", type=pathlib.Path, help="keep features and networks here and go on from them")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full training, for a trial")
    parser.add_argument("--evaluate", action="store_true", help="measure the bundles in --out, train nothing")
    args = parser.parse_args()
    if args.test is None and args.data is not None:
        args.test = args.data.parent / "kws_wav"
    if args.evaluate:
        return evaluate(args.out, args.data, args.test)
    if args.data is None:
        parser.error("--data: the folder of training recordings is needed")
    began = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        trained = train(args.data, work / "pool.pkl", args.scale, work)
        minutes = f"about {max(1, round((time.time() - began) / 60))} minutes on 2 cores"
        pack(trained, work / "pool.pkl", args.data, args.test, args.out, minutes)
    print(f"done in {(time.time() - began) / 60:.1f} minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
