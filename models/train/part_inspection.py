"""Train and measure the part-inspection bundles.

    python models/train/part_inspection.py --out models/bundles
    python models/train/part_inspection.py --evaluate [--out models/bundles]

The first renders the scenes, trains the device's network and the site's, quantises both, and writes
`part-inspection` and `part-inspection-large`. The second renders the test scenes again from their
seed and measures what lies in the bundles; it ends with 1 if an accuracy is not the stated one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bundle_writer as bw
from parts.camera import front_end
from parts.card import Measured, card
from parts.render import inputs
from parts.samples import choose_samples
from parts.scene import CALIBRATION, LABELS, TEST, TRAINING

DATE = "2026-11-20"
VERSION = "1.0.0"
TASK = "part-inspection"
TRAINING_SEED, TRAINING_COUNT = 1001, 8000
CALIBRATION_SEED, CALIBRATION_COUNT = 2002, 1500
TEST_SEED, TEST_COUNT = 3003, 2000
WEIGHTS_SEED = 17
RANGED_OVER = 300  # scenes over which the int8 activations are ranged

# JPEG decoders differ by a level here and there; that alone moves a logit by up to 0.1.
TOLERANCE = {"int8": 0.75, "fp32": 0.25}


@dataclass(frozen=True)
class Plan:
    """One of the two bundles."""

    name: str
    title: str
    description: str
    network: str
    width: int
    height: int
    convolutions: tuple[tuple[int, int, int], ...]
    epochs: int
    batch: int
    rate: float
    dropout: float


SMALL = Plan(
    name="part-inspection",
    title="part-inspection: the device's model",
    description="tells good machined surfaces from scratched, dented, stained or cracked ones in a camera frame",
    network="5 convolutions, 32 findings for each of 12 x 9 cells, their maximum, one linear layer",
    width=96,
    height=72,
    convolutions=((16, 5, 2), (32, 3, 2), (48, 3, 1), (64, 3, 2), (96, 3, 1)),
    epochs=20,
    batch=32,
    rate=3e-3,
    dropout=0.1,
)
LARGE = Plan(
    name="part-inspection-large",
    title="part-inspection-large: the site's model",
    description="the site's bigger model for part-inspection: more pixels, more weights, fewer mistakes",
    network="6 convolutions, 32 findings for each of 24 x 18 cells, their maximum, one linear layer",
    width=192,
    height=144,
    convolutions=((16, 5, 2), (24, 3, 2), (48, 3, 1), (64, 3, 2), (64, 3, 1), (96, 3, 1)),
    epochs=12,
    batch=32,
    rate=3e-3,
    dropout=0.1,
)
PLANS = (SMALL, LARGE)


@dataclass
class Frames:
    """A rendered set: pixels and cells with defects for each plan by name, and the labels' numbers."""

    pixels: dict[str, np.ndarray]
    where: dict[str, np.ndarray]
    labels: np.ndarray


@dataclass
class Trained:
    """A bundle's graphs with what was measured on them."""

    plan: Plan
    folder: Path
    parameters: int
    operations: int
    temperature: float
    threshold: float
    measured: list[Measured]
    test_logits: np.ndarray  # of the default variant

    def answers(self, file: bytes) -> list[tuple[int, float]]:
        """Each variant's label number and confidence for a picture file."""
        x = [_input(self.plan, file)]
        found = [bw.logits_of(self.folder / f"model.{m.variant}.onnx", x) for m in self.measured]
        chances = bw.softmax(np.concatenate(found), self.temperature)
        return [(int(c.argmax()), float(c.max())) for c in chances]

    def knows(self, file: bytes, label: int) -> bool:
        """Whether every variant is right, and well above the threshold."""
        surely = self.threshold + 0.4 * (1 - self.threshold)
        return all(answer == label and sure > surely for answer, sure in self.answers(file))


START = time.perf_counter()


def say(text: str) -> None:
    """Progress, with the time since the start."""
    print(f"{time.perf_counter() - START:7.0f} s  {text}", flush=True)


def _input(plan: Plan, file: bytes) -> np.ndarray:
    from parts.network import normalised

    return normalised(front_end(file, plan.width, plan.height))


def rendered(what: str, ranges, seed: int, count: int, threads: int, work: Path | None) -> Frames:
    """Render a set for both plans, or take it from `work`."""
    kept = work / f"{what}-{seed}-{count}.npz" if work else None
    if kept and kept.exists():
        found = np.load(kept)
        where = {p.name: found[f"{p.name} cells"] for p in PLANS}
        return Frames({p.name: found[p.name] for p in PLANS}, where, found["labels"])
    say(f"rendering {count} {what} scenes")
    stacks, where, labels = inputs(ranges, seed, count, tuple((p.width, p.height) for p in PLANS), threads)
    names = [p.name for p in PLANS]
    frames = Frames(dict(zip(names, stacks)), dict(zip(names, where)), labels)
    if kept:
        np.savez(kept, labels=labels, **frames.pixels, **{f"{n} cells": w for n, w in frames.where.items()})
    return frames


def graph_inputs(plan: Plan, frames: Frames, every: int = 1) -> list[np.ndarray]:
    """A set as the plan's graph takes it."""
    from parts.network import normalised

    return [normalised(p) for p in frames.pixels[plan.name][::every]]


def trained(plan: Plan, training: Frames, calibration: Frames, work: Path | None):
    """Train the plan's network, or take its weights from `work`."""
    from parts import network as nn

    shape = nn.Shape(plan.name, plan.width, plan.height, plan.convolutions)
    kept = work / f"{plan.name}.npz" if work else None
    if kept and kept.exists():
        network = nn.Network(shape, len(LABELS), WEIGHTS_SEED)
        network.load(np.load(kept))
        return network
    schedule = nn.Schedule(plan.epochs, plan.rate, plan.batch, plan.dropout, WEIGHTS_SEED)
    held_out = calibration.pixels[plan.name][:500]

    def watch(epoch: int, network: nn.Network, loss: float) -> None:
        right = (nn.logits(network, held_out).argmax(1) == calibration.labels[:500]).mean()
        say(f"{plan.name} epoch {epoch + 1}/{plan.epochs}: loss {loss:.3f}, calibration scenes {100 * right:.1f} %")

    pixels, where = training.pixels[plan.name], training.where[plan.name]
    network = nn.train(shape, schedule, len(LABELS), pixels, where, training.labels, watch)
    if kept:
        np.savez(kept, **network.state())
    return network


def make_graphs(plan: Plan, folder: Path, training: Frames, calibration: Frames, work: Path | None):
    """Train, write model.fp32.onnx and model.int8.onnx; the network comes back for its numbers."""
    from parts import network as nn

    network = trained(plan, training, calibration, work)
    fp32, int8 = folder / "model.fp32.onnx", folder / "model.int8.onnx"
    network.export(fp32)
    some = calibration.pixels[plan.name][:20]
    apart = np.abs(bw.logits_of(fp32, [nn.normalised(p) for p in some]) - nn.logits(network, some)).max()
    if apart > 1e-3:
        raise RuntimeError(f"{plan.name}: the written graph is {apart} away from the trained network")
    bw.quantise(fp32, int8, graph_inputs(plan, calibration, max(1, len(calibration.labels) // RANGED_OVER)))
    return network


def make_model(plan: Plan, out: Path, training: Frames, calibration: Frames, test: Frames, work: Path | None) -> Trained:
    """The graphs of one bundle, its temperature, threshold and measurements."""
    folder = out / plan.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    network = make_graphs(plan, folder, training, calibration, work)
    held_out, unseen = graph_inputs(plan, calibration), graph_inputs(plan, test)
    found = {}
    for variant in ("int8", "fp32"):
        file = folder / f"model.{variant}.onnx"
        found[variant] = (bw.logits_of(file, held_out), bw.logits_of(file, unseen), file.stat().st_size)
    temperature = bw.fit_temperature(found["int8"][0], calibration.labels)
    threshold = bw.fit_threshold(found["int8"][0], calibration.labels, temperature)
    measured = [
        Measured(
            variant,
            size,
            bw.measure(on_test, test.labels, temperature, threshold),
            bw.measure(on_calibration, calibration.labels, temperature, threshold),
            bw.confusion(on_test, test.labels, len(LABELS)),
        )
        for variant, (on_calibration, on_test, size) in found.items()
    ]
    for m in measured:
        say(f"{plan.name} {m.variant}: {m.bytes} bytes, test {m.test}, calibration {m.calibration}")
    return Trained(
        plan, folder, network.parameters(), network.operations(), temperature, threshold, measured, found["int8"][1]
    )


def together(small: Trained, large: Trained, labels: np.ndarray) -> str:
    """What the two do as a pair on the test scenes."""
    chances = bw.softmax(small.test_logits, small.temperature)
    up = chances.max(1) < small.threshold
    answers = np.where(up, large.test_logits.argmax(1), chances.argmax(1))
    right = answers == labels
    small_up = (chances.argmax(1) == labels)[up].mean() if up.any() else 1.0
    return (
        f"As a pair on the test scenes: the device's int8 model sends {100 * up.mean():.1f} % of the frames up. Of those it had "
        f"{100 * small_up:.1f} % right itself and the site's model has {100 * right[up].mean():.1f} %. The device alone is right in "
        f"{100 * (chances.argmax(1) == labels).mean():.1f} %, the pair in **{100 * right.mean():.1f} %**."
    )


def finish(model: Trained, samples: list[tuple[str, str, bytes]], pair: str) -> None:
    """Samples, golden outputs, picture, card and bundle.toml."""
    plan, folder = model.plan, model.folder
    for name, _, file in samples:
        (folder / "samples" / name).write_bytes(file)
    paths = [f"samples/{name}" for name, _, _ in samples]
    files = {m.variant: f"model.{m.variant}.onnx" for m in model.measured}
    bw.write_golden(folder, paths, files, lambda file: _input(plan, file))
    title = f"{plan.name} int8, {TEST_COUNT} test scenes"
    bw.draw_confusion(folder / "confusion.png", model.measured[0].confusion, LABELS, title)
    facts = {
        "width": plan.width,
        "height": plan.height,
        "network": plan.network,
        "parameters": model.parameters,
        "operations": model.operations,
        "temperature": model.temperature,
        "threshold": model.threshold,
        "test_count": TEST_COUNT,
        "test_seed": TEST_SEED,
        "calibration_count": CALIBRATION_COUNT,
        "calibration_seed": CALIBRATION_SEED,
        "training_count": TRAINING_COUNT,
        "training_seed": TRAINING_SEED,
        "epochs": plan.epochs,
    }
    (folder / "CARD.md").write_text(card(plan.title, facts, model.measured, pair), encoding="utf-8")
    bw.write_bundle(folder, _description(model, samples))
    say(f"wrote {folder}")


def _description(model: Trained, samples: list[tuple[str, str, bytes]]) -> dict:
    from parts.network import MEAN, STD

    plan = model.plan
    return {
        "format": 1,
        "name": plan.name,
        "version": VERSION,
        "task": TASK,
        "kind": "classification",
        "description": plan.description,
        "licence": "MIT OR Apache-2.0",
        "provenance": {
            "trained_by": "models/train/part_inspection.py",
            "data": ["synthetic images only: machined surfaces rendered by models/train/parts"],
            "seed": WEIGHTS_SEED,
            "date": DATE,
        },
        "input": [
            {
                "name": "image",
                "dtype": "f32",
                "shape": [1, 3, plan.height, plan.width],
                "image": {
                    "width": plan.width,
                    "height": plan.height,
                    "channels": "rgb",
                    "resize": "stretch",
                    "filter": "bilinear",
                    "layout": "nchw",
                    "mean": [MEAN] * 3,
                    "std": [STD] * 3,
                },
            }
        ],
        "output": [
            {
                "name": "logits",
                "dtype": "f32",
                "shape": [1, len(LABELS)],
                "meaning": "logits",
                "labels": LABELS,
                "temperature": model.temperature,
                "threshold": model.threshold,
            }
        ],
        "variant": [
            {
                "name": m.variant,
                "precision": "int8-qdq" if m.variant == "int8" else m.variant,
                "file": f"model.{m.variant}.onnx",
                "tolerance": TOLERANCE[m.variant],
                "accuracy": round(m.test["accuracy"], 4),
            }
            for m in model.measured
        ],
        "sample": [{"file": f"samples/{name}", "label": label} for name, label, _ in samples],
    }


def build(out: Path, threads: int, work: Path | None) -> None:
    """Everything, from seeds to bundles."""
    # All rendering in several processes comes first: TensorFlow's threads do not survive a fork.
    if work:
        work.mkdir(parents=True, exist_ok=True)
    training = rendered("training", TRAINING, TRAINING_SEED, TRAINING_COUNT, threads, work)
    calibration = rendered("calibration", CALIBRATION, CALIBRATION_SEED, CALIBRATION_COUNT, threads, work)
    test = rendered("test", TEST, TEST_SEED, TEST_COUNT, threads, work)
    _limit_threads(threads)
    small, large = (make_model(plan, out, training, calibration, test, work) for plan in PLANS)
    samples = choose_samples(small, large)
    pair = together(small, large, test.labels)
    say(pair)
    for model in (small, large):
        finish(model, samples, pair)


def _limit_threads(threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)


def evaluate(out: Path, threads: int) -> int:
    """Measure the bundles as they lie there, on test scenes rendered again."""
    test = rendered("test", TEST, TEST_SEED, TEST_COUNT, threads, None)
    wrong = 0
    print(f"{'bundle':24}{'variant':9}{'stated':>8}{'found':>8}{'ECE':>8}{'accepted':>10}{'right of those':>16}")
    for plan in PLANS:
        bundle = tomllib.loads((out / plan.name / "bundle.toml").read_text(encoding="utf-8"))
        mean, std = (np.float32(bundle["input"][0]["image"][key][0]) for key in ("mean", "std"))
        output = bundle["output"][0]
        for variant in bundle["variant"]:
            pixels = test.pixels[plan.name]
            x = [((p / np.float32(255) - mean) / std).transpose(2, 0, 1)[None] for p in pixels]
            found = bw.logits_of(out / plan.name / variant["file"], x)
            m = bw.measure(found, test.labels, output["temperature"], output["threshold"])
            print(
                f"{plan.name:24}{variant['name']:9}{variant['accuracy']:8.4f}{m['accuracy']:8.4f}"
                f"{m['calibration_error']:8.3f}{m['accepted']:10.3f}{m['accepted_accuracy']:16.4f}"
            )
            wrong += abs(m["accuracy"] - variant["accuracy"]) > 0.005
    return 1 if wrong else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "bundles")
    parser.add_argument("--evaluate", action="store_true", help="measure the bundles in --out instead of making them")
    parser.add_argument("--work", type=Path, help="keep rendered sets and weights here, and go on from them")
    parser.add_argument("--threads", type=int, default=2, help="processes that render and threads that train")
    options = parser.parse_args()
    if options.evaluate:
        return evaluate(options.out, options.threads)
    build(options.out, options.threads, options.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
