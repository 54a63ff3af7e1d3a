"""A scene to a camera frame.

**Invariant:** the frame of a set's i-th scene depends on the set's seed and i alone, not on how many
processes render.
"""

from __future__ import annotations

import multiprocessing

import numpy as np

from .camera import expose, front_end, to_jpeg
from .defects import defects
from .features import Canvas, features
from .scene import LABELS, Ranges, Scene, scene
from .surface import F, Frame, lighting, smooth_noise, surface


def picture(rng: np.random.Generator, drawn: Scene) -> np.ndarray:
    """Render 8-bit RGB, height x width x 3."""
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
    return expose(rng, drawn, canvas.luminance, canvas.tint)


def frame_of(ranges: Ranges, seed: int, index: int) -> tuple[Scene, np.ndarray]:
    """The index-th scene of a set, and its frame; labels take turns."""
    rng = np.random.default_rng([seed, index])
    drawn = scene(rng, ranges, LABELS[index % len(LABELS)])
    return drawn, picture(rng, drawn)


def _inputs(job: tuple[Ranges, int, int, tuple[tuple[int, int], ...]]) -> list[np.ndarray]:
    ranges, seed, index, sizes = job
    drawn, pixels = frame_of(ranges, seed, index)
    file = to_jpeg(pixels, drawn.jpeg_quality)
    return [front_end(file, width, height) for width, height in sizes]


def inputs(
    ranges: Ranges, seed: int, count: int, sizes: tuple[tuple[int, int], ...], processes: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """`count` frames of a set as network pixels at each (width, height), and their labels' numbers."""
    stacks = [np.empty((count, height, width, 3), np.uint8) for width, height in sizes]
    jobs = [(ranges, seed, index, sizes) for index in range(count)]
    with multiprocessing.Pool(processes) as pool:
        for index, pictures in enumerate(pool.imap(_inputs, jobs, chunksize=16)):
            for stack, pixels in zip(stacks, pictures):
                stack[index] = pixels
    return stacks, np.arange(count) % len(LABELS)
