"""The networks: plain convolutions, findings for every cell, their maximum over places, and a linear layer.

Training runs NHWC with batch norm; the graph that is written is NCHW with batch norm folded into
the convolutions. The maximum over places fits the question: one defect anywhere decides. The first
findings of a cell have, while it trains, to be the logits of the label in that very cell, for the
renderer knows where the defects are; the others are free.

**Invariant:** the written graph gives the logits of `forward(training=False)` (`train` checks it).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

EPSILON = 1e-3
FINDINGS = 32
MEAN, STD = 0.5, 0.25  # x = (u8 / 255 - MEAN) / STD


@dataclass(frozen=True)
class Shape:
    """A network: its input and its convolutions, each (channels, kernel, stride)."""

    name: str
    width: int
    height: int
    convolutions: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Schedule:
    """How it is trained."""

    epochs: int
    rate: float
    batch: int
    dropout: float
    seed: int


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """TensorFlow's SAME for one axis: length after, padding before and behind."""
    after = -(-size // stride)
    total = max((after - 1) * stride + kernel - size, 0)
    return after, total // 2, total - total // 2


def normalised(pixels: np.ndarray) -> np.ndarray:
    """8-bit HWC pixels to the graph's input, f32 [1, 3, height, width]."""
    x = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices by itself; training then takes half the time."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class Network:
    """Weights (f32) and the forward pass; training computes convolutions in bfloat16 where that is fast."""

    def __init__(self, shape: Shape, classes: int, seed: int):
        rng = np.random.default_rng(seed)
        self.shape = shape
        self.half = multiplies_bfloat16()
        self.layers: list[dict[str, tf.Variable]] = []
        self.stats: list[dict[str, tf.Variable]] = []
        channels = 3
        for out, kernel, _ in shape.convolutions:
            spread = np.sqrt(2 / (kernel * kernel * channels))
            weight = rng.normal(0, spread, (kernel, kernel, channels, out)).astype(np.float32)
            self.layers.append(
                {"w": tf.Variable(weight), "gamma": tf.Variable(tf.ones(out)), "beta": tf.Variable(tf.zeros(out))}
            )
            self.stats.append(
                {"mean": tf.Variable(tf.zeros(out), trainable=False), "var": tf.Variable(tf.ones(out), trainable=False)}
            )
            channels = out
        self.classes = classes
        self.cells = self._linear(rng, channels, FINDINGS)
        self.dense = self._linear(rng, FINDINGS, classes)

    @staticmethod
    def _linear(rng: np.random.Generator, inputs: int, outputs: int) -> dict[str, tf.Variable]:
        weight = rng.normal(0, np.sqrt(1 / inputs), (inputs, outputs)).astype(np.float32)
        return {"w": tf.Variable(weight), "bias": tf.Variable(tf.zeros(outputs))}

    @property
    def variables(self) -> list[tf.Variable]:
        return [v for _, v in self._named()]

    def _named(self) -> list[tuple[str, tf.Variable]]:
        return [item for layer in [*self.layers, self.cells, self.dense] for item in layer.items()]

    def forward(self, x: tf.Tensor, training: bool, dropout: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
        """Of normalised NHWC pictures: the logits, and the logits of every cell."""
        short = training and self.half
        if short:
            x = tf.cast(x, tf.bfloat16)
        for layer, stats, (_, _, stride) in zip(self.layers, self.stats, self.shape.convolutions):
            kernel = tf.cast(layer["w"], tf.bfloat16) if short else layer["w"]
            x = tf.nn.conv2d(x, kernel, stride, "SAME")
            if training:
                x, mean, var = tf.compat.v1.nn.fused_batch_norm(
                    x, layer["gamma"], layer["beta"], epsilon=EPSILON, is_training=True
                )
                stats["mean"].assign(0.97 * stats["mean"] + 0.03 * mean)
                stats["var"].assign(0.97 * stats["var"] + 0.03 * var)
            else:
                scale = layer["gamma"] / tf.sqrt(stats["var"] + EPSILON)
                x = x * scale + (layer["beta"] - stats["mean"] * scale)
            x = tf.nn.relu(x)
        x = tf.cast(x, tf.float32)
        cells = x @ self.cells["w"] + self.cells["bias"]
        x = tf.reduce_max(cells, axis=(1, 2))
        if training and dropout > 0:
            x = tf.nn.dropout(x, dropout)
        return x @ self.dense["w"] + self.dense["bias"], cells[..., : self.classes]

    def state(self) -> dict[str, np.ndarray]:
        """Every number of the network, in a fixed order."""
        layers = [*self.layers, *self.stats, self.cells, self.dense]
        return {f"{i}/{k}": v.numpy() for i, layer in enumerate(layers) for k, v in layer.items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Take back what `state` gave."""
        for i, layer in enumerate([*self.layers, *self.stats, self.cells, self.dense]):
            for k, v in layer.items():
                v.assign(state[f"{i}/{k}"])

    def parameters(self) -> int:
        """How many numbers the written graph carries."""
        return sum(int(np.prod(v.shape)) for k, v in self._named() if k != "gamma")

    def operations(self) -> int:
        """Multiply-accumulates of one answer."""
        height, width, channels, total = self.shape.height, self.shape.width, 3, 0
        for out, kernel, stride in self.shape.convolutions:
            height, width = -(-height // stride), -(-width // stride)
            total += height * width * kernel * kernel * channels * out
            channels = out
        return total + height * width * channels * FINDINGS + FINDINGS * self.classes

    def export(self, path: Path) -> None:
        """Write the fp32 graph: `image` [1, 3, height, width] -> `logits` [1, classes]."""
        nodes, constants = [], []

        def constant(name: str, value: np.ndarray) -> str:
            constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
            return name

        at, height, width = "image", self.shape.height, self.shape.width
        for i, (out, kernel, stride) in enumerate(self.shape.convolutions):
            layer = {k: v.numpy() for k, v in (self.layers[i] | self.stats[i]).items()}
            scale = layer["gamma"] / np.sqrt(layer["var"] + EPSILON)
            weight = constant(f"conv{i}.weight", (layer["w"] * scale).transpose(3, 2, 0, 1))
            bias = constant(f"conv{i}.bias", layer["beta"] - layer["mean"] * scale)
            height, top, bottom = _padding(height, kernel, stride)
            width, left, right = _padding(width, kernel, stride)
            attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [top, left, bottom, right]}
            nodes.append(helper.make_node("Conv", [at, weight, bias], [f"conv{i}"], f"conv{i}", **attributes))
            nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"], f"relu{i}"))
            at = f"relu{i}"
        weight = constant("cells.weight", self.cells["w"].numpy().T[:, :, None, None])
        bias = constant("cells.bias", self.cells["bias"].numpy())
        nodes.append(helper.make_node("Conv", [at, weight, bias], ["cells"], "cells", kernel_shape=[1, 1]))
        nodes.append(helper.make_node("MaxPool", ["cells"], ["most"], "most", kernel_shape=[height, width]))
        nodes.append(helper.make_node("Flatten", ["most"], ["flat"], "flat", axis=1))
        weight = constant("dense.weight", self.dense["w"].numpy().T)
        bias = constant("dense.bias", self.dense["bias"].numpy())
        nodes.append(helper.make_node("Gemm", ["flat", weight, bias], ["logits"], "dense", transB=1))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, self.shape.height, self.shape.width])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, self.classes])
        graph = helper.make_graph(nodes, self.shape.name, [image], [logits], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="holdfast")
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def _varied(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Small changes of gain, colour and noise on normalised pictures."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    n = tf.shape(x)[0]
    shade = x * STD + MEAN
    shade *= tf.random.stateless_uniform([n, 1, 1, 1], seeds[0], 0.8, 1.2)
    shade *= tf.random.stateless_uniform([n, 1, 1, 3], seeds[1], 0.9, 1.1)
    grain = tf.random.stateless_uniform([n, 1, 1, 1], seeds[2], 0.0, 0.02)
    shade += grain * tf.random.stateless_normal(tf.shape(x), seeds[3])
    return (tf.clip_by_value(shade, 0.0, 1.0) - MEAN) / STD


def _cell_loss(cells: tf.Tensor, where: tf.Tensor, target: tf.Tensor, classes: int) -> tf.Tensor:
    """Cross-entropy of every cell: its picture's label where the defect is, good elsewhere.

    Cells with a defect are few; they count five times.
    """
    there = where[..., None]
    wanted = there * tf.one_hot(target, classes)[:, None, None] + (1 - there) * tf.one_hot([0], classes)
    weight = 1 + 4 * there[..., 0]
    loss = tf.nn.softmax_cross_entropy_with_logits(wanted, cells)
    return tf.reduce_sum(loss * weight) / tf.reduce_sum(weight)


def train(
    shape: Shape,
    schedule: Schedule,
    classes: int,
    pixels: np.ndarray,
    where: np.ndarray,
    labels: np.ndarray,
    watch=None,
) -> Network:
    """Train on 8-bit pictures. `watch(epoch, network, loss)` is called after every epoch."""
    tf.random.set_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    network = Network(shape, classes, schedule.seed)
    steps = len(pixels) // schedule.batch
    total = steps * schedule.epochs
    variables = network.variables
    first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
    second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
    decays = [len(v.shape) > 1 for v in variables]

    @tf.function
    def step(batch, places, target, rate, number):
        x = (tf.cast(batch, tf.float32) / 255.0 - MEAN) / STD
        x = _varied(x, tf.stack([schedule.seed, number]))
        with tf.GradientTape() as tape:
            logits, cells = network.forward(x, True, schedule.dropout)
            wanted = tf.one_hot(target, classes) * 0.95 + 0.05 / classes
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(wanted, logits))
            loss += _cell_loss(cells, tf.cast(places, tf.float32) / 255.0, target, classes)
        t = tf.cast(number + 1, tf.float32)
        for v, g, m, s, decay in zip(variables, tape.gradient(loss, variables), first, second, decays):
            m.assign(0.9 * m + 0.1 * g)
            s.assign(0.999 * s + 0.001 * g * g)
            move = (m / (1 - 0.9**t)) / (tf.sqrt(s / (1 - 0.999**t)) + 1e-7)
            v.assign_sub(rate * (move + (0.02 * v if decay else 0.0)))
        return loss

    number = 0
    for epoch in range(schedule.epochs):
        order, losses = rng.permutation(len(pixels)), []
        for start in range(0, steps * schedule.batch, schedule.batch):
            chosen = np.sort(order[start : start + schedule.batch])
            batch, places = pixels[chosen], where[chosen]
            if rng.random() < 0.5:
                batch, places = batch[:, ::-1], places[:, ::-1]
            if rng.random() < 0.5:
                batch, places = batch[:, :, ::-1], places[:, :, ::-1]
            done = number / total
            rate = schedule.rate * min(1.0, done / 0.05) * 0.5 * (1 + np.cos(np.pi * done))
            loss = step(
                tf.constant(np.ascontiguousarray(batch)),
                tf.constant(np.ascontiguousarray(places)),
                tf.constant(labels[chosen].astype(np.int32)),
                tf.constant(rate, tf.float32),
                tf.constant(number, tf.int32),
            )
            losses.append(loss)
            number += 1
        if watch:
            watch(epoch, network, float(np.mean([float(loss) for loss in losses])))
    return network


def logits(network: Network, pixels: np.ndarray, batch: int = 100) -> np.ndarray:
    """Logits of 8-bit pictures, by the network as it was trained."""
    rows = []
    for start in range(0, len(pixels), batch):
        x = (pixels[start : start + batch].astype(np.float32) / 255 - MEAN) / STD
        rows.append(network.forward(tf.constant(x), False)[0].numpy())
    return np.concatenate(rows)
