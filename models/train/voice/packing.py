"""The voice bundles' directories from trained networks: graphs, calibration, samples and what they are listed in.

Invariant: samples come from espeak voices that training did not hear, and are judged as the 16-bit files that they become.
"""

import datetime
import io
import tempfile
from pathlib import Path

import bundle_writer as writer
import numpy as np
import onnx
import soundfile
from onnxruntime.quantization import CalibrationMethod

from . import augment, dataset, frontend, network, speech

INT8, FP32 = "model.int8.onnx", "model.fp32.onnx"
WANTED_RIGHT = 0.97
TOLERANCE = {"int8": 0.5, "fp32": 0.001}


def logits(path, features):
    """Logits [n, classes] of features [n, frames, bands]."""
    return writer.logits_of(path, features[:, None, None])


def sound_features(content):
    """The graph's input from a WAV file's bytes."""
    return frontend.features(soundfile.read(io.BytesIO(content), dtype="float32")[0])[None, None]


def quantise(fp32, int8, calibration, check):
    """int8 QDQ; of two ways to find the ranges, the one whose logits on `check` are nearer to those of fp32.

    What computes the logits from the pooled features stays in fp32: a step of the logits would be coarse, and it
    costs nothing there.
    """
    last, names = set(), []
    for node in onnx.load(fp32).graph.node:
        if node.op_type in ("Flatten", "Gemm") or (node.op_type == "Add" and set(node.input) <= last):
            names.append(node.name)
            last |= set(node.output)
    want = logits(fp32, check)
    best = None
    for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / INT8
            writer.quantise(fp32, path, calibration[:, None, None], method, {"CalibPercentile": 99.99}, names)
            got, content = logits(path, check), path.read_bytes()
        gap = float(np.mean(np.abs(got - want)))
        same = float(np.mean(got.argmax(-1) == want.argmax(-1)))
        print(f"int8 by {method.name}: logits off by {gap:.3f} on average, {same:.3f} with the same answer", flush=True)
        if best is None or gap < best[0]:
            best = (gap, content)
    int8.write_bytes(best[1])


class Candidate:
    """A recording that may become a sample, as 16-bit samples."""

    def __init__(self, wave, label):
        self.pcm = np.clip(np.round(np.asarray(wave) * 32767), -32768, 32767).astype(np.int16)
        self.label = label
        self.features = frontend.features(self.pcm.astype(np.float32) / 32768)


def candidates(seed):
    """(clear, hard): words of held-out voices in a quiet and in a loud place, other words, noise."""
    rng = np.random.default_rng(seed)
    clear, hard = [], []
    voices = speech.variants()[1]
    clips = speech.synthesise(voices, 24, 0, seed)
    for word in ("window", "machine", "seven", "coffee"):
        clips += [(speech.say(word, "en-gb", voice, 150, 50), speech.UNKNOWN, word) for voice in voices[:4]]
    for wave, label, _ in clips:
        at = int(rng.integers(800, max(801, augment.CLIP - len(wave) - 800)))
        clip = augment.place(wave * 0.5, at)
        clear.append(Candidate(clip + augment.coloured_noise(rng) * 10 ** (-rng.uniform(46, 56) / 20), label))
        if label < len(speech.REAL_WORDS):
            level = float(np.sqrt(np.mean(clip**2)))
            loud = clip + augment.coloured_noise(rng) * level * 10 ** (-rng.uniform(-3, 9) / 20)
            hard.append(Candidate(0.6 * loud / np.max(np.abs(loud)), label))
    for _ in range(6):
        clear.append(Candidate(augment.coloured_noise(rng) * 10 ** (-rng.uniform(36, 46) / 20), speech.SILENCE))
    return clear, hard


def choose_samples(small, large, seed=99, hard_wanted=3):
    """[(name, candidate)]: the clearest sample of every label, and `hard_wanted` that the small model answers under its
    threshold and the large one above. `small`, `large`: (folder, temperature, threshold)."""
    clear, hard = candidates(seed)

    def judged(group, side):
        folder, temperature, _ = side
        x = np.stack([c.features for c in group])
        return [writer.softmax(logits(folder / f, x), temperature) for f in (INT8, FP32)]

    labels = np.array([c.label for c in clear])
    worst = np.min([p[np.arange(len(clear)), labels] for side in (small, large) for p in judged(clear, side)], axis=0)
    chosen = []
    for label, name in enumerate(speech.LABELS):
        best = max(np.flatnonzero(labels == label), key=lambda i: worst[i])
        chosen.append((f"{name}-1", clear[best]))
        if worst[best] < max(small[2], large[2]):
            print(f"warning: the clearest sample of {name} has a confidence of {worst[best]:.2f}", flush=True)
    labels = np.array([c.label for c in hard])
    index = np.arange(len(hard))
    unsure = judged(hard, small)
    low = np.max([p.max(-1) for p in unsure], axis=0)
    right = np.all([p.argmax(-1) == labels for p in unsure], axis=0)
    high = np.min([p[index, labels] for p in judged(hard, large)], axis=0)
    fit = [i for i in index if low[i] < small[2] - 0.05 and high[i] > large[2] + 0.03]
    fit.sort(key=lambda i: (not right[i], low[i] - high[i]))
    seen = set()
    for i in fit:
        if labels[i] not in seen and len(seen) < hard_wanted:
            seen.add(labels[i])
            chosen.append((f"{speech.LABELS[labels[i]]}-noisy", hard[i]))
            print(f"{chosen[-1][0]}: small {low[i]:.2f} ({'right' if right[i] else 'wrong'}), large {high[i]:.2f}", flush=True)
    if len(seen) < hard_wanted:
        print(f"warning: {len(seen)} of {hard_wanted} noisy samples found", flush=True)
    return chosen


def write_samples(folder, chosen):
    """samples/*.wav, 16 kHz mono 16-bit; returns the [[sample]] entries."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for old in (folder / "samples").glob("*.wav"):
        old.unlink()
    entries = []
    for name, candidate in chosen:
        soundfile.write(folder / "samples" / f"{name}.wav", candidate.pcm, speech.RATE, subtype="PCM_16")
        entries.append({"file": f"samples/{name}.wav", "label": speech.LABELS[candidate.label]})
    return entries


def manifest(name, version, description, seed, temperature, threshold, samples):
    """bundle.toml as a table, without the files; `accuracy` is set when it has been measured."""
    return {
        "format": 1,
        "name": name,
        "version": version,
        "task": "voice-commands",
        "kind": "classification",
        "description": description,
        "licence": "MIT OR Apache-2.0",
        "provenance": {
            "trained_by": "models/train/voice_commands.py",
            "data": ["Speech Commands v0.02 excerpt (Pete Warden, Google), CC BY 4.0", "synthetic speech from espeak-ng"],
            "seed": seed,
            "date": datetime.date.today().isoformat(),
        },
        "input": [
            {"name": "features", "dtype": "f32", "shape": [1, 1, network.FRAMES, network.BANDS], "audio": frontend.AUDIO}
        ],
        "output": [
            {
                "name": "logits",
                "dtype": "f32",
                "shape": [1, len(speech.LABELS)],
                "meaning": "logits",
                "labels": speech.LABELS,
                "temperature": temperature,
                "threshold": threshold,
            }
        ],
        "variant": [
            {"name": name, "precision": precision, "file": file, "tolerance": TOLERANCE[name], "accuracy": 0.0}
            for name, precision, file in (("int8", "int8-qdq", INT8), ("fp32", "fp32", FP32))
        ],
        "sample": samples,
    }


def test_sets(data, test):
    """{name: (features, labels)} that a bundle is measured on; those whose folder is not there are left out."""
    sets = {}
    if test is not None and (test / "labels.csv").exists():
        rows = speech.recordings(test)
        sets["recordings"] = (np.stack([frontend.features(r[0]) for r in rows]), np.array([r[1] for r in rows]))
    if data is not None and (data / "labels.csv").exists():
        sets.update(dataset.held_out(speech.recordings(data)))
    return sets
