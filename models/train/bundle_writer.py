"""What every bundle needs, whatever it was trained on: quantising, calibrating, the files, their hashes.

A training script makes the fp32 graph and the samples; this module makes the int8 variant, fits
temperature and threshold, and writes golden.toml, bundle.toml and confusion.png. The front end is
handed in as a function from a sample file's bytes to the network's input, so the golden outputs go
the way that the agent goes.

**Invariant:** bundle.toml is written last and lists the hash of every file that the agent reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

NOT_HASHED = {"bundle.toml", "CARD.md", "confusion.png"}


# --- running -------------------------------------------------------------------------------------


def session(model: Path) -> ort.InferenceSession:
    """ONNX Runtime on the CPU, one thread, so that the answers do not depend on the machine's cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def logits_of(model: Path, inputs: Iterable[np.ndarray]) -> np.ndarray:
    """Logits, one row for each input; an input has the graph's whole shape, batch of 1 included."""
    runtime = session(model)
    name = runtime.get_inputs()[0].name
    return np.stack([runtime.run(None, {name: x.astype(np.float32)})[0][0] for x in inputs])


# --- int8 ----------------------------------------------------------------------------------------


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, inputs: Iterable[np.ndarray]):
        self._feeds = iter([{name: x.astype(np.float32)} for x in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantise(
    fp32: Path,
    int8: Path,
    inputs: Iterable[np.ndarray],
    method: CalibrationMethod = CalibrationMethod.MinMax,
    options: dict[str, Any] | None = None,
    in_fp32: Iterable[str] = (),
) -> None:
    """Write the QDQ form: int8 weights per channel, int8 activations ranged over `inputs`.

    The nodes named in `in_fp32` stay as they are.
    """
    name = onnx.load(fp32).graph.input[0].name
    quantize_static(
        str(fp32),
        str(int8),
        _Reader(name, inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        nodes_to_exclude=list(in_fp32),
        extra_options=options or {},
    )
    model = onnx.load(int8)
    if any(node.op_type == "Softmax" for node in model.graph.node):
        raise ValueError(f"{int8.name} has a Softmax: a bundle's graph ends at its logits")
    onnx.save(model, int8)


# --- confidence ----------------------------------------------------------------------------------


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Rows of probabilities."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood on held-out examples."""
    candidates = np.exp(np.linspace(np.log(0.25), np.log(5.0), 400))

    def loss(temperature: float) -> float:
        chances = softmax(logits, temperature)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(chances, 1e-12)).mean())

    return round(float(min(candidates, key=loss)), 3)


def fit_threshold(logits: np.ndarray, labels: np.ndarray, temperature: float, wanted: float = 0.97) -> float:
    """The lowest confidence (in hundredths) above which the wanted share of answers is right."""
    chances = softmax(logits, temperature)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    for hundredths in range(20, 100):
        accepted = sure >= hundredths / 100
        if accepted.sum() >= 20 and right[accepted].mean() >= wanted:
            return hundredths / 100
    return 0.99


def measure(logits: np.ndarray, labels: np.ndarray, temperature: float, threshold: float) -> dict[str, float]:
    """Accuracy; expected calibration error (15 bins); how many answers are accepted, and how right they are."""
    chances = softmax(logits, temperature)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(
        (bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean())
        for b in range(15)
        if (bins == b).any()
    )
    accepted = sure >= threshold
    return {
        "accuracy": float(right.mean()),
        "calibration_error": float(error),
        "accepted": float(accepted.mean()),
        "accepted_accuracy": float(right[accepted].mean()) if accepted.any() else 1.0,
    }


def confusion(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts: rows are what it is, columns what was answered."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (labels, logits.argmax(axis=1)), 1)
    return table


def draw_confusion(path: Path, table: np.ndarray, labels: list[str], title: str) -> None:
    """confusion.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = max(4.6, 0.52 * len(labels) + 2.2)
    figure, axes = plt.subplots(figsize=(size, size), dpi=100)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(labels)):
        for column in range(len(labels)):
            if table[row, column]:
                ink = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, str(table[row, column]), ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answered")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


# --- files ---------------------------------------------------------------------------------------


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        text = repr(round(float(value), 7))
        return text if any(c in text for c in ".en") else text + ".0"
    if isinstance(value, (list, tuple, np.ndarray)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"no TOML form for {type(value).__name__}")


def to_toml(table: dict[str, Any], path: str = "") -> str:
    """TOML of nested dicts; a list of dicts becomes an array of tables. Plain values come first."""
    lines = [f"{key} = {_value(v)}" for key, v in table.items() if not _is_table(v)]
    for key, v in table.items():
        name = f"{path}.{key}" if path else key
        if isinstance(v, dict):
            lines += ["", f"[{name}]", to_toml(v, name)]
        elif _is_table(v):
            for item in v:
                lines += ["", f"[[{name}]]", to_toml(item, name)]
    return "\n".join(lines).rstrip("\n") + ("\n" if not path else "")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def write_golden(
    folder: Path, samples: Iterable[str], variants: dict[str, str], front_end: Callable[[bytes], np.ndarray]
) -> dict[str, np.ndarray]:
    """golden.toml: ONNX Runtime's logits for each sample and variant (name -> model file).

    Returns the logits of each variant, in the samples' order.
    """
    samples = list(samples)
    inputs = [front_end((folder / sample).read_bytes()) for sample in samples]
    rows, found = [], {}
    for name, file in variants.items():
        found[name] = logits_of(folder / file, inputs)
        rows += [{"sample": s, "variant": name, "output": o} for s, o in zip(samples, found[name])]
    head = "# Logits of ONNX Runtime behind the Python front end; the agent compares before it serves.\n"
    (folder / "golden.toml").write_text(head + to_toml({"golden": rows}), encoding="utf-8")
    return found


def write_bundle(folder: Path, bundle: dict[str, Any]) -> None:
    """bundle.toml: `bundle` as it is, and the size and hash of every file in the folder."""
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in NOT_HASHED:
            content = path.read_bytes()
            files.append({"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    (folder / "bundle.toml").write_text(to_toml({**bundle, "file": files}), encoding="utf-8")
