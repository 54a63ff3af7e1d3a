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
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context

SEED = 17
VERSION = "1.0.0"
CLASSES = 16

SMALL = [
    ("conv", 32, (5, 5), (2, 2)),
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
# name: blocks, seed, steps, (real, synthetic, silence) clips a step, masks a clip, learning rate, whether clips are bent,
# teachers, and the network whose weights it starts from
RUNS = {
    "residual-a": (RESIDUAL, SEED, 2600, (60, 28, 8), 2, 3e-3, False, [], None),
    "residual-b": (RESIDUAL, SEED + 1, 2600, (60, 28, 8), 2, 3e-3, False, [], None),
    "residual-c": (RESIDUAL, SEED + 2, 2600, (64, 24, 8), 2, 3e-3, True, [], None),
    "small": (SMALL, SEED + 3, 2600, (60, 28, 8), 1, 4e-3, False, ["residual-a"], None),
    "taught-a": (RESIDUAL, SEED + 4, 800, (64, 24, 8), 2, 1e-3, True, ["residual-a", "residual-b", "residual-c"], "residual-a"),
    "taught-b": (RESIDUAL, SEED + 5, 800, (64, 24, 8), 2, 1e-3, True, ["residual-a", "residual-b", "residual-c"], "residual-b"),
}
MEMBERS = ["taught-a", "taught-b"]
DESCRIPTIONS = {
    "voice-commands": "Ten spoken command words and four worksite words within one second of sound, small enough for any board.",
    "voice-commands-large": "The words of voice-commands, heard by two larger networks together; for the machine at the site.",
}
NETWORKS = {
    "voice-commands": "A depthwise-separable convolutional network on 49 x 40 log-mel features. It learnt from the labels "
    "and from a larger, residual one (distillation).",
    "voice-commands-large": "Two residual convolutional networks on 49 x 40 log-mel features, each taught by three earlier "
    "ones, in one graph; the logits are their mean.",
}


def one_thread():
    """Keeps TensorFlow quiet and on one thread; call before its first use in a process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def run_one(name, cache, scale, trained):
    """Trains one network, in a process of the pool; returns its state. `trained` has the networks that it needs."""
    from voice import dataset, network, trainer

    pool, held = dataset.prepared(None, SEED, scale, cache)
    blocks, seed, steps, shares, masks, rate, bent, teachers, start = RUNS[name]
    wise = []
    for teacher in teachers:
        wise.append(network.Network(trained[teacher][0], 0, half=network.bf16_is_quick()))
        wise[-1].load(trained[teacher][1])
    made = trainer.train(
        name,
        blocks,
        pool,
        held,
        seed=seed,
        steps=max(20, int(steps * scale)),
        shares=shares,
        masks=masks,
        rate=rate,
        bent=bent,
        teachers=wise,
        start=trained[start][1] if start else None,
        dropout=0.0 if name == "small" else 0.2,
        half=network.bf16_is_quick(),
    )
    return made.state()


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
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=one_thread) as processes:
        jobs = {}
        while len(trained) < len(RUNS):
            for name, run in RUNS.items():
                needs = {n: trained.get(n) for n in [*run[7], run[8]] if n}
                if name not in trained and name not in jobs and None not in needs.values():
                    jobs[name] = processes.submit(run_one, name, cache, scale, needs)
            wait(jobs.values(), return_when=FIRST_COMPLETED)
            for name in [n for n, job in jobs.items() if job.done()]:
                keep(name, jobs.pop(name).result())
    return trained


def parts(blocks, state):
    """How many numbers of a network the exported graph carries."""
    from voice import network

    return network.Network(blocks, 0).parameters()


def pack(trained, cache, data, test, out, minutes):
    """Both bundles' folders from the trained networks."""
    import bundle_writer as writer
    import numpy as np

    from voice import card, dataset, network, packing, speech

    pool, held = dataset.prepared(data, SEED, 1.0, cache)
    rng = np.random.default_rng(SEED)
    near = np.concatenate([held["noisy"][0][::3], held["voices"][0][::4]])
    drawn = [p[0][rng.integers(len(p[0]), size=n)] for p, n in ((pool.real, 200), (pool.synthetic, 120), (pool.silence, 60))]
    calibration = np.concatenate(drawn).astype(np.float32)
    members = {"voice-commands": ["small"], "voice-commands-large": MEMBERS}
    sides = {}
    for name, networks in members.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        network.export([trained[n] for n in networks], CLASSES, folder / packing.FP32)
        packing.quantise(folder / packing.FP32, folder / packing.INT8, calibration, near)
        scores = np.concatenate([packing.logits(folder / packing.INT8, held[s][0]) for s in ("speakers", "noisy")])
        labels = np.concatenate([held[s][1] for s in ("speakers", "noisy")])
        temperature = writer.fit_temperature(scores, labels)
        sides[name] = (folder, temperature, writer.fit_threshold(scores, labels, temperature, packing.WANTED_RIGHT))
        print(f"{name}: temperature {sides[name][1]}, threshold {sides[name][2]}", flush=True)
    chosen = packing.choose_samples(sides["voice-commands"], sides["voice-commands-large"])
    rows = speech.recordings(data)
    sets = packing.test_sets(data, test)
    for name, (folder, temperature, threshold) in sides.items():
        samples = packing.write_samples(folder, chosen)
        files = {"int8": packing.INT8, "fp32": packing.FP32}
        writer.write_golden(folder, [s["file"] for s in samples], files, packing.sound_features)
        table = packing.manifest(name, VERSION, DESCRIPTIONS[name], SEED, temperature, threshold, samples)
        writer.write_bundle(folder, table)
        results = card.measure(folder, sets)
        for variant in table["variant"]:
            variant["accuracy"] = round(results.get("recordings", results["speakers"])[variant["name"]]["accuracy"], 4)
        writer.write_bundle(folder, table)
        parameters = sum(parts(*trained[n]) for n in members[name])
        card.write(folder, results, card.facts(NETWORKS[name], parameters, rows, minutes))
        print(f"{name}\n{card.table(results)}", flush=True)


def evaluate(out, data, test):
    """Measures the committed bundles; 1 when a variant is under the accuracy that its bundle.toml states."""
    import numpy as np

    from voice import card, packing, speech

    sets = packing.test_sets(data, test)
    bad = 0
    for name in DESCRIPTIONS:
        folder = out / name
        manifest = tomllib.loads((folder / "bundle.toml").read_text())
        x = np.concatenate([packing.sound_features((folder / s["file"]).read_bytes())[0] for s in manifest["sample"]])
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
