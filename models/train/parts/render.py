"""A scene to a camera frame.

**Invariant:** the frame of a set's i-th scene depends on the set's seed and i alone, not on how many
processes render.
"""

from __future__ import annotations

import multiprocessing

import numpy as np
from PIL import Image

from .camera import expose, front_end, to_jpeg
from .defects import defects
from .features import Canvas, features
from .scene import LABELS, Ranges, Scene, scene
from .surface import F, Frame, lighting, smooth_noise, surface


# Pixels of the network's input to one of its cells, in which training names the defect.
CELL = 8


def picture(rng: np.random.Generator, drawn: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Render 8-bit RGB, height x width x 3, and where the defect is, 0..1, height x width."""
    frame = Frame.of(drawn)
    metal = surface(rng, drawn, frame)
    light = lighting(rng, drawn, frame)
    marks = metal.marks * F(drawn.relief)
    patina = 1 + F(rng.uniform(0.0, 0.06)) * smooth_noise(rng, frame.shape, 6)
    diffuse = F(0.22) + F(0.30 * np.sin(drawn.elevation))
    luminance = light * patina * diffuse * (1 + marks)
    luminance += light * F(drawn.highlight) * metal.sheen * (F(0.55) + F(0.8) * marks)
    canvas = Canvas(frame, luminance)
    features(rng, drawn, canvas)
    defects(rng, drawn, canvas)
    return expose(rng, drawn, canvas.luminance, canvas.tint), canvas.defect


def frame_of(ranges: Ranges, seed: int, index: int) -> tuple[Scene, np.ndarray, np.ndarray]:
    """The index-th scene of a set, its frame, and where the defect is; labels take turns."""
    rng = np.random.default_rng([seed, index])
    drawn = scene(rng, ranges, LABELS[index % len(LABELS)])
    return drawn, *picture(rng, drawn)


def _inputs(job: tuple[Ranges, int, int, tuple[tuple[int, int], ...]]) -> list[np.ndarray]:
    ranges, seed, index, sizes = job
    drawn, pixels, defect = frame_of(ranges, seed, index)
    file = to_jpeg(pixels, drawn.jpeg_quality)
    pictures = [front_end(file, width, height) for width, height in sizes]
    return pictures + [_cells(defect, width // CELL, height // CELL) for width, height in sizes]


def _cells(defect: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """How surely each cell shows the defect, 8-bit: the most of its nine ninths, a sixth covered being sure."""
    ninths = np.asarray(Image.fromarray(defect).resize((columns * 3, rows * 3), Image.Resampling.BOX))
    most = ninths.reshape(rows, 3, columns, 3).max(axis=(1, 3))
    return np.clip(most * 255 * 6, 0, 255).astype(np.uint8)


def inputs(
    ranges: Ranges, seed: int, count: int, sizes: tuple[tuple[int, int], ...], processes: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """`count` frames of a set as network pixels at each (width, height), their cells with defects
    (8-bit, CELL pixels each), and the labels' numbers."""
    stacks = [np.empty((count, height, width, 3), np.uint8) for width, height in sizes]
    stacks += [np.empty((count, height // CELL, width // CELL), np.uint8) for width, height in sizes]
    jobs = [(ranges, seed, index, sizes) for index in range(count)]
    with multiprocessing.Pool(processes) as pool:
        for index, pictures in enumerate(pool.imap(_inputs, jobs, chunksize=16)):
            for stack, pixels in zip(stacks, pictures):
                stack[index] = pixels
    return stacks[: len(sizes)], stacks[len(sizes) :], np.arange(count) % len(LABELS)
