"""Networks as a list of blocks: how they run while training, and the ONNX graph that they become.

A network is a list of blocks, each a tuple:
    ("conv", channels, (kh, kw), (sh, sw))   convolution, batch norm, ReLU
    ("ds", channels, (sh, sw))               3x3 depthwise + 1x1, a residual where the shape allows it
    ("res", channels, (sh, sw))              two 3x3 convolutions with a shortcut
    ("band",)                                depthwise over 3 frames x all bands: the band axis becomes 1
    ("pool",)                                mean over time and bands
    ("dense", n)                             the logits
Training runs NHWC with batch norm; the ONNX graph is NCHW, batch norm folded into the weights, ends at the logits.

Invariant: `export` of trained weights computes what `forward(..., training=False)` computes.
"""

import functools

import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

FRAMES, BANDS = 49, 40
BN_EPSILON = 1e-3
BN_KEEP = 0.98


def same_pads(size, kernel, stride):
    """Output length and (before, after) padding of TensorFlow's SAME for one axis."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, (total // 2, total - total // 2)


def bf16_is_quick():
    """Whether this processor multiplies bfloat16 matrices by itself; dense convolutions then train in half the time."""
    try:
        with open("/proc/cpuinfo") as handle:
            return "amx_bf16" in handle.read()
    except OSError:
        return False


class Network:
    """Weights (f32) and the forward pass of one list of blocks; `half` computes dense convolutions in bfloat16."""

    def __init__(self, blocks, seed, dropout=0.0, half=False):
        self.blocks = blocks
        self.half = half
        self.rng = np.random.default_rng(seed)
        self.weights, self.stats = {}, {}
        self.drop = dropout
        height, width, channels = FRAMES, BANDS, 1
        for i, block in enumerate(blocks):
            height, width, channels = self._build(f"b{i}", block, height, width, channels)

    def _variable(self, name, shape, fan_in, scale=2.0):
        value = self.rng.normal(0.0, np.sqrt(scale / fan_in), shape).astype(np.float32)
        self.weights[name] = tf.Variable(value, name=name)

    def _norm(self, name, channels, gamma=1.0):
        self.weights[name + "/gamma"] = tf.Variable(np.full(channels, gamma, np.float32))
        self.weights[name + "/beta"] = tf.Variable(np.zeros(channels, np.float32))
        self.stats[name + "/mean"] = tf.Variable(np.zeros(channels, np.float32), trainable=False)
        self.stats[name + "/var"] = tf.Variable(np.ones(channels, np.float32), trainable=False)

    def _build(self, name, block, height, width, channels):
        kind = block[0]
        if kind == "conv":
            _, out, (kh, kw), (sh, sw) = block
            self._variable(name + "/w", (kh, kw, channels, out), kh * kw * channels)
            self._norm(name, out)
            return -(-height // sh), -(-width // sw), out
        if kind == "ds":
            _, out, (sh, sw) = block
            self._variable(name + "/dw", (3, 3, channels, 1), 9)
            self._norm(name + "/d", channels)
            self._variable(name + "/pw", (1, 1, channels, out), channels)
            self._norm(name + "/p", out)
            return -(-height // sh), -(-width // sw), out
        if kind == "res":
            _, out, (sh, sw) = block
            self._variable(name + "/w1", (3, 3, channels, out), 9 * channels)
            self._norm(name + "/1", out)
            self._variable(name + "/w2", (3, 3, out, out), 9 * out)
            self._norm(name + "/2", out)
            if channels != out or (sh, sw) != (1, 1):
                self._variable(name + "/ws", (1, 1, channels, out), channels, 1.0)
                self._norm(name + "/s", out)
            return -(-height // sh), -(-width // sw), out
        if kind == "band":
            self._variable(name + "/dw", (3, width, channels, 1), 3 * width)
            self._norm(name, channels)
            return height - 2, 1, channels
        if kind == "pool":
            return 1, 1, channels
        if kind == "dense":
            self._variable(name + "/w", (channels, block[1]), channels, 1.0)
            self.weights[name + "/bias"] = tf.Variable(np.zeros(block[1], np.float32))
            return 1, 1, block[1]
        raise ValueError(f"unknown block {kind}")

    def _kernel(self, name):
        value = self.weights[name]
        return tf.cast(value, tf.bfloat16) if self.half else value

    def _bn(self, x, name, training):
        w, s = self.weights, self.stats
        fused = functools.partial(tf.compat.v1.nn.fused_batch_norm, epsilon=BN_EPSILON)
        if training:
            y, mean, var = fused(x, w[name + "/gamma"], w[name + "/beta"], is_training=True)
            s[name + "/mean"].assign(BN_KEEP * s[name + "/mean"] + (1 - BN_KEEP) * mean)
            s[name + "/var"].assign(BN_KEEP * s[name + "/var"] + (1 - BN_KEEP) * var)
            return y
        return fused(
            x, w[name + "/gamma"], w[name + "/beta"], s[name + "/mean"], s[name + "/var"], is_training=False
        )[0]

    def forward(self, x, training):
        """Logits of features [n, FRAMES, BANDS]."""
        x = x[..., None]
        if self.half:
            x = tf.cast(x, tf.bfloat16)
        w = self.weights
        for i, block in enumerate(self.blocks):
            name, kind = f"b{i}", block[0]
            if kind == "conv":
                x = tf.nn.conv2d(x, self._kernel(name + "/w"), block[3], "SAME")
                x = tf.nn.relu(self._bn(x, name, training))
            elif kind == "ds":
                _, out, (sh, sw) = block
                y = tf.nn.depthwise_conv2d(tf.cast(x, tf.float32), w[name + "/dw"], (1, sh, sw, 1), "SAME")
                y = tf.cast(tf.nn.relu(self._bn(y, name + "/d", training)), x.dtype)
                y = self._bn(tf.nn.conv2d(y, self._kernel(name + "/pw"), 1, "VALID"), name + "/p", training)
                x = tf.nn.relu(y + x) if (sh, sw) == (1, 1) and x.shape[-1] == out else tf.nn.relu(y)
            elif kind == "res":
                y = tf.nn.conv2d(x, self._kernel(name + "/w1"), block[2], "SAME")
                y = tf.nn.relu(self._bn(y, name + "/1", training))
                y = self._bn(tf.nn.conv2d(y, self._kernel(name + "/w2"), 1, "SAME"), name + "/2", training)
                if name + "/ws" in w:
                    x = self._bn(tf.nn.conv2d(x, self._kernel(name + "/ws"), block[2], "VALID"), name + "/s", training)
                x = tf.nn.relu(x + y)
            elif kind == "band":
                x = tf.nn.depthwise_conv2d(tf.cast(x, tf.float32), w[name + "/dw"], (1, 1, 1, 1), "VALID")
                x = tf.nn.relu(self._bn(x, name, training))
            elif kind == "pool":
                x = tf.cast(tf.reduce_mean(x, axis=(1, 2)), tf.float32)
                if training and self.drop > 0:
                    x = tf.nn.dropout(x, self.drop)
            else:
                x = tf.matmul(x, w[name + "/w"]) + w[name + "/bias"]
        return x

    def parameters(self):
        """How many numbers the exported graph carries, batch norm folded."""
        return sum(int(np.prod(v.shape)) for k, v in self.weights.items() if not k.endswith("/gamma"))

    def state(self):
        """Every number of the network, by name."""
        return {k: v.numpy() for k, v in {**self.weights, **self.stats}.items()}

    def load(self, state):
        """Takes back what `state` gave."""
        for k, v in {**self.weights, **self.stats}.items():
            v.assign(state[k])


class _Graph:
    """ONNX nodes and initialisers as they are added."""

    def __init__(self):
        self.nodes, self.initialisers, self.count = [], [], 0

    def add(self, kind, inputs, **attributes):
        self.count += 1
        out = f"{kind.lower()}{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def constant(self, value):
        self.count += 1
        name = f"w{self.count}"
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _folded(state, name, weight, out_axis):
    scale = state[name + "/gamma"] / np.sqrt(state[name + "/var"] + BN_EPSILON)
    shape = [1] * weight.ndim
    shape[out_axis] = -1
    return weight * scale.reshape(shape), state[name + "/beta"] - state[name + "/mean"] * scale


def _conv(g, x, size, state, weight, norm, stride, padding="same", depthwise=False, relu=True):
    """One convolution with its batch norm folded in; returns the tensor and its (height, width)."""
    kernel = state[weight]
    axis = 2 if depthwise else 3
    kernel, bias = _folded(state, norm, kernel, axis)
    kh, kw = kernel.shape[:2]
    if padding == "same":
        (h, top), (w, left) = same_pads(size[0], kh, stride[0]), same_pads(size[1], kw, stride[1])
        pads = [top[0], left[0], top[1], left[1]]
    else:
        h, w, pads = size[0] - kh + 1, size[1] - kw + 1, [0, 0, 0, 0]
    onnx_kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
    out = g.add(
        "Conv",
        [x, g.constant(onnx_kernel.astype(np.float32)), g.constant(bias.astype(np.float32))],
        kernel_shape=[kh, kw],
        strides=list(stride),
        pads=pads,
        group=kernel.shape[2] if depthwise else 1,
    )
    if relu:
        out = g.add("Relu", [out])
    return out, (h, w)


def _blocks(g, x, blocks, state, scale):
    """The nodes of one network; its logits are scaled by `scale`."""
    size, channels = (FRAMES, BANDS), 1
    for i, block in enumerate(blocks):
        name, kind = f"b{i}", block[0]
        if kind == "conv":
            x, size = _conv(g, x, size, state, name + "/w", name, block[3])
            channels = block[1]
        elif kind == "ds":
            stride = block[2]
            y, size_y = _conv(g, x, size, state, name + "/dw", name + "/d", stride, depthwise=True)
            y, size_y = _conv(g, y, size_y, state, name + "/pw", name + "/p", (1, 1), relu=False)
            if stride == (1, 1) and channels == block[1]:
                y = g.add("Add", [y, x])
            x, size, channels = g.add("Relu", [y]), size_y, block[1]
        elif kind == "res":
            y, size_y = _conv(g, x, size, state, name + "/w1", name + "/1", block[2])
            y, size_y = _conv(g, y, size_y, state, name + "/w2", name + "/2", (1, 1), relu=False)
            if name + "/ws" in state:
                x, _ = _conv(g, x, size, state, name + "/ws", name + "/s", block[2], relu=False)
            x, size, channels = g.add("Relu", [g.add("Add", [y, x])]), size_y, block[1]
        elif kind == "band":
            x, size = _conv(g, x, size, state, name + "/dw", name, (1, 1), "valid", depthwise=True)
        elif kind == "pool":
            x = g.add("AveragePool", [x], kernel_shape=list(size))
            x = g.add("Flatten", [x], axis=1)
        else:
            weight = (state[name + "/w"].T * scale).astype(np.float32)
            bias = (state[name + "/bias"] * scale).astype(np.float32)
            x = g.add("Gemm", [x, g.constant(weight), g.constant(bias)], transB=1)
    return x


def export(members, classes, path):
    """Writes one graph whose logits are the mean of the members' [(blocks, state)] logits."""
    g = _Graph()
    logits = [_blocks(g, "features", blocks, state, 1.0 / len(members)) for blocks, state in members]
    total = logits[0]
    for other in logits[1:]:
        total = g.add("Add", [total, other])
    for node in g.nodes:
        node.output[:] = ["logits" if o == total else o for o in node.output]
    graph = helper.make_graph(
        g.nodes,
        "voice-commands",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 1, FRAMES, BANDS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        g.initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="holdfast")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
