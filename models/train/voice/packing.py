"""A bundle's directory from trained networks: graphs, calibration, samples, golden outputs, bundle.toml.

Invariant: bundle.toml lists every file that the agent reads, with the hash of what lies on disk.
"""

import hashlib
import json
import os
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime
import soundfile
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from scipy.optimize import minimize_scalar

from . import augment, dataset, frontend, network, speech

INT8, FP32 = "model.int8.onnx", "model.fp32.onnx"
WANTED_RIGHT = 0.97


def session(path):
    """A one-thread ONNX Runtime session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(path, features):
    """Logits [n, classes] of features [n, frames, bands]; the graph takes one clip at a time."""
    run = session(path)
    rows = [run.run(None, {"features": x[None, None].astype(np.float32)})[0][0] for x in features]
    return np.stack(rows)


def softmax(x, temperature=1.0):
    """Probabilities of logits."""
    x = (x - x.max(-1, keepdims=True)) / temperature
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


class _Reader(CalibrationDataReader):
    def __init__(self, features):
        self.rows = iter(features)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"features": row[None, None].astype(np.float32)}


def quantise(fp32, int8, calibration, check):
    """int8 QDQ per channel; of the ways to find ranges, the one whose logits on `check` are nearest to fp32.

    The last Gemm and what follows it stay in fp32: a step of the logits would be coarse, and they cost nothing.
    """
    want = logits(fp32, check)
    graph = onnx.load(fp32).graph
    outside = [n.name for n in graph.node if n.op_type in ("Gemm", "Flatten")]
    gemms = {o for n in graph.node if n.op_type == "Gemm" for o in n.output}
    sums = set(gemms)
    for node in graph.node:
        if node.op_type == "Add" and all(i in sums for i in node.input):
            outside.append(node.name)
            sums |= set(node.output)
    best = None
    for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "q.onnx")
            quantize_static(
                fp32,
                path,
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QInt8,
                nodes_to_exclude=outside,
                calibrate_method=method,
                extra_options={"CalibPercentile": 99.99},
            )
            got = logits(path, check)
            gap = float(np.mean(np.abs(got - want)))
            same = float(np.mean(got.argmax(-1) == want.argmax(-1)))
            print(f"int8 by {method.name}: logits off by {gap:.3f} on average, {same:.3f} with the same answer", flush=True)
            if best is None or gap < best[0]:
                best = (gap, pathlib.Path(path).read_bytes())
    model = onnx.load_from_string(best[1])
    model.producer_name, model.doc_string = "holdfast", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, int8)


def calibrate(scores, labels):
    """(temperature, threshold) from logits of held-out speakers: the likeliest temperature, and the lowest
    confidence from which on WANTED_RIGHT of the answers are right."""
    def loss(t):
        return -np.mean(np.log(softmax(scores, t)[np.arange(len(labels)), labels] + 1e-12))
    temperature = round(float(minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x), 3)
    p = softmax(scores, temperature)
    confidence, right = p.max(-1), p.argmax(-1) == labels
    order = np.argsort(-confidence)
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= WANTED_RIGHT)
    threshold = confidence[order][enough[-1]] if len(enough) else 0.95
    return temperature, round(float(np.clip(threshold, 0.4, 0.95)), 2)


def calibration_error(p, labels, bins=10):
    """Expected calibration error of probabilities."""
    confidence, right = p.max(-1), p.argmax(-1) == labels
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(sum(np.mean(at == b) * abs(np.mean(confidence[at == b]) - np.mean(right[at == b])) for b in set(at)))


class Candidate:
    """A recording that may become a sample: a held-out espeak voice, quantised to 16 bits."""

    def __init__(self, wave, label):
        self.pcm = np.clip(np.round(np.asarray(wave) * 32767), -32768, 32767).astype(np.int16)
        self.label = label
        self.features = frontend.features(self.pcm.astype(np.float32) / 32768)


def candidates(seed=99):
    """(clear, hard) candidates: words of held-out voices in a quiet and in a loud place, noise, other words."""
    rng = np.random.default_rng(seed)
    clear, hard = [], []
    clips = speech.synthesise(speech.variants()[1], 12, 0, seed)
    for word in ("window", "machine", "seven", "coffee"):
        clips += [(speech.say(word, "en-gb", v, 150, 50), speech.UNKNOWN, word) for v in ("Andy", "f3", "Lee")]
    for wave, label, _ in clips:
        at = int(rng.integers(800, max(801, augment.CLIP - len(wave) - 800)))
        clip = augment.place(wave * 0.5, at)
        clear.append(Candidate(clip + augment.coloured_noise(rng) * 10 ** (-rng.uniform(46, 56) / 20), label))
        if label < len(speech.REAL_WORDS):
            level = float(np.sqrt(np.mean(clip**2)))
            loud = clip + augment.coloured_noise(rng) * level * 10 ** (-rng.uniform(-3, 9) / 20)
            hard.append(Candidate(0.6 * loud / np.max(np.abs(loud)), label))
    for _ in range(4):
        clear.append(Candidate(augment.coloured_noise(rng) * 10 ** (-rng.uniform(36, 46) / 20), speech.SILENCE))
    return clear, hard


def choose_samples(small, large, hard_wanted=3):
    """[(name, candidate)]: one clear sample of every label that all files answer, and `hard_wanted` that the
    small model answers below its threshold and the large one above. `small`, `large`: (folder, temperature, threshold)."""
    clear, hard = candidates()

    def judged(group, side):
        folder, temperature, _ = side
        x = np.stack([c.features for c in group])
        return [softmax(logits(folder / f, x), temperature) for f in (INT8, FP32)]

    labels = np.array([c.label for c in clear])
    worst = np.min([p[np.arange(len(clear)), labels] for side in (small, large) for p in judged(clear, side)], axis=0)
    chosen = []
    for label, name in enumerate(speech.LABELS):
        of = [i for i in range(len(clear)) if labels[i] == label]
        chosen.append((f"{name}-1", clear[max(of, key=lambda i: worst[i])]))
    labels = np.array([c.label for c in hard])
    index = np.arange(len(hard))
    low = np.max([p.max(-1) for p in judged(hard, small)], axis=0)
    right = np.all([p.argmax(-1) == labels for p in judged(hard, small)], axis=0)
    high = np.min([p[index, labels] for p in judged(hard, large)], axis=0)
    fit = [i for i in index if low[i] < small[2] - 0.05 and high[i] > large[2] + 0.03]
    fit.sort(key=lambda i: (not right[i], low[i] - high[i]))
    seen = set()
    for i in fit:
        if labels[i] not in seen and len(seen) < hard_wanted:
            seen.add(labels[i])
            chosen.append((f"{speech.LABELS[labels[i]]}-noisy", hard[i]))
    if len(seen) < hard_wanted:
        print(f"warning: {len(seen)} of {hard_wanted} noisy samples found", flush=True)
    return chosen


def write_samples(folder, chosen):
    """samples/*.wav, 16 kHz mono 16-bit."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for old in (folder / "samples").glob("*.wav"):
        old.unlink()
    for name, candidate in chosen:
        soundfile.write(folder / "samples" / f"{name}.wav", candidate.pcm, 16000, subtype="PCM_16")


def write_golden(folder, chosen):
    """golden.toml: what ONNX Runtime answers to every sample."""
    lines = ["# logits of ONNX Runtime on the reference front end (models/train/voice/frontend.py)"]
    for variant, file in (("int8", INT8), ("fp32", FP32)):
        rows = logits(folder / file, np.stack([c.features for _, c in chosen]))
        for (name, _), row in zip(chosen, rows):
            values = ", ".join(f"{v:.5f}" for v in row)
            lines += ["", "[[golden]]", f'sample = "samples/{name}.wav"', f'variant = "{variant}"', f"output = [{values}]"]
    (folder / "golden.toml").write_text("\n".join(lines) + "\n")


def _value(value):
    if isinstance(value, bool) or not isinstance(value, (str, list)):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def write_manifest(folder, *, name, version, description, temperature, threshold, accuracy, tolerance, chosen, seed, date):
    """bundle.toml."""
    def table(head, entries):
        return ["", head] + [f"{k} = {_value(v)}" for k, v in entries.items()]

    audio = {**frontend.AUDIO}
    lines = [
        "format = 1",
        f'name = "{name}"',
        f'version = "{version}"',
        'task = "voice-commands"',
        'kind = "classification"',
        f"description = {_value(description)}",
        'licence = "MIT OR Apache-2.0"',
    ]
    lines += table("[provenance]", {
        "trained_by": "models/train/voice_commands.py",
        "data": ["Speech Commands v0.02 excerpt (Pete Warden, Google), CC BY 4.0", "synthetic speech from espeak-ng"],
        "seed": seed,
        "date": date,
    })
    lines += table("[[input]]", {"name": "features", "dtype": "f32", "shape": [1, 1, network.FRAMES, network.BANDS]})
    lines += table("[input.audio]", audio)
    lines += table("[[output]]", {
        "name": "logits",
        "dtype": "f32",
        "shape": [1, len(speech.LABELS)],
        "meaning": "logits",
        "labels": speech.LABELS,
        "temperature": temperature,
        "threshold": threshold,
    })
    for variant, precision, file in (("int8", "int8-qdq", INT8), ("fp32", "fp32", FP32)):
        lines += table("[[variant]]", {
            "name": variant,
            "precision": precision,
            "file": file,
            "tolerance": tolerance[variant],
            "accuracy": accuracy[variant],
        })
    for sample, candidate in chosen:
        lines += table("[[sample]]", {"file": f"samples/{sample}.wav", "label": speech.LABELS[candidate.label]})
    for path in [INT8, FP32, "golden.toml"] + [f"samples/{s}.wav" for s, _ in chosen]:
        data = (folder / path).read_bytes()
        lines += table("[[file]]", {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "bundle.toml").write_text("\n".join(lines) + "\n")


def test_sets(data, test):
    """{name: (features, labels)} that a bundle is measured on; those whose folder is not there are left out."""
    sets = {}
    if test is not None and (test / "labels.csv").exists():
        rows = speech.recordings(test)
        sets["recordings"] = (np.stack([frontend.features(r[0]) for r in rows]), np.array([r[1] for r in rows]))
    if data is not None and (data / "labels.csv").exists():
        held = dataset.held_out(speech.recordings(data))
        sets.update(held)
    return sets
