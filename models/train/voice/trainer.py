"""Training of one network: AdamW, a cosine schedule, averaged weights, and a teacher where there is one.

Invariant: the networks are judged while training by held-out speakers and voices, never by the test recordings.
"""

import math
import time

import numpy as np
import tensorflow as tf

from . import speech
from .network import Network

SMOOTHING = 0.05
WEIGHT_DECAY = 0.02
AVERAGE_KEEP = 0.998
TEACHER_HEAT = 1.5
TEACHER_SHARE = 0.7


class _Adam:
    """AdamW with an exponential average of the weights, as one graph with the step."""

    def __init__(self, variables):
        self.variables = variables
        self.m = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.v = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.average = [tf.Variable(v, trainable=False) for v in variables]

    def apply(self, gradients, rate, step):
        gradients, _ = tf.clip_by_global_norm(gradients, 3.0)
        fix = tf.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        keep = tf.minimum(AVERAGE_KEEP, (1 + step) / (10 + step))
        for v, g, m, s, a in zip(self.variables, gradients, self.m, self.v, self.average):
            m.assign(0.9 * m + 0.1 * g)
            s.assign(0.99 * s + 0.01 * g * g)
            decay = WEIGHT_DECAY * v if len(v.shape) > 1 else 0.0
            v.assign_sub(rate * (fix * m / (tf.sqrt(s) + 1e-7) + decay))
            a.assign(keep * a + (1 - keep) * v)


def accuracy(network, features, labels):
    """Share of right answers."""
    right = 0
    for at in range(0, len(labels), 128):
        logits = network.forward(tf.constant(features[at : at + 128], tf.float32), False)
        right += int(np.sum(np.argmax(logits, -1) == labels[at : at + 128]))
    return right / len(labels)


def targets(pool, teachers):
    """What each clip of the pool should be answered with: its label, smoothed, or for the most part what teachers say."""
    classes = len(speech.LABELS)
    ask = tf.function(lambda x: tf.nn.softmax(tf.add_n([t.forward(x, False) for t in teachers]) / (len(teachers) * TEACHER_HEAT)))
    out = []
    for features, labels in pool.parts():
        hard = np.eye(classes, dtype=np.float32)[labels] * (1 - SMOOTHING) + SMOOTHING / classes
        if teachers:
            said = [ask(tf.constant(features[at : at + 128], tf.float32)) for at in range(0, len(labels), 128)]
            hard = (1 - TEACHER_SHARE) * hard + TEACHER_SHARE * np.concatenate(said)
        out.append(hard.astype(np.float16))
    return out


def train(name, blocks, pool, held, *, seed, steps, shares, masks, rate, bent=False, teachers=(), start=None, dropout=0.0, half=False):
    """The trained network; it learns from the labels and from the mean answer of `teachers`, if any.

    `start` is the state of a network of the same blocks to go on from.
    """
    tf.random.set_seed(seed)
    network = Network(blocks, seed, dropout, half)
    if start is not None:
        network.load(start)
    variables = list(network.weights.values())
    adam = _Adam(variables)
    wanted = targets(pool, teachers)
    size = sum(shares)

    @tf.function
    def step(x, y, learning_rate, number):
        with tf.GradientTape() as tape:
            logits = network.forward(x, True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, logits))
        adam.apply(tape.gradient(loss, variables), learning_rate, number)
        return loss

    batches = pool.batches(seed, wanted, shares, masks, bent)
    began, warm, total = time.time(), max(1, steps // 20), 0.0
    print(f"{name}: {network.parameters()} parameters, {steps} steps of {size}", flush=True)
    for number in range(1, steps + 1):
        at = min(1.0, number / warm) * 0.5 * (1 + math.cos(math.pi * number / steps))
        x, y = next(batches)
        total += float(step(tf.constant(x), tf.constant(y), tf.constant(rate * at), tf.constant(float(number))))
        if number % max(1, steps // 8) == 0:
            scores = {k: f"{accuracy(network, *held[k]):.3f}" for k in held}
            print(f"{name}: step {number} loss {total / (steps // 8):.3f} {scores} {time.time() - began:.0f} s", flush=True)
            total = 0.0
    for variable, average in zip(variables, adam.average):
        variable.assign(average)
    settle(network, pool.batches(seed + 1, wanted, shares, 0, False))
    print(f"{name}: averaged {({k: f'{accuracy(network, *held[k]):.4f}' for k in held})} {time.time() - began:.0f} s", flush=True)
    return network


def settle(network, batches):
    """Batch statistics of the averaged weights."""
    run = tf.function(lambda x: network.forward(x, True))
    for _ in range(150):
        run(tf.constant(next(batches)[0]))
