"""The metal: tool marks, and how they throw the light.

**Invariant:** everything is a field over the frame (float32, height x width) and a function of the
scene and the generator handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .scene import Scene

F = np.float32


@dataclass
class Frame:
    """Coordinates of the frame in frame heights, and the light in the frame's plane."""

    x: np.ndarray
    y: np.ndarray
    light_x: float  # unit vector towards the light, in the frame's plane
    light_y: float
    pixels: int  # pixels to one frame height

    @classmethod
    def of(cls, scene: Scene) -> Frame:
        y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(F)
        x = (x + F(0.5) - F(scene.width / 2)) / F(scene.height)
        y = (y + F(0.5) - F(scene.height / 2)) / F(scene.height)
        return cls(x, y, float(np.cos(scene.azimuth)), float(np.sin(scene.azimuth)), scene.height)

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape


@dataclass
class Surface:
    """Tool marks as the camera meets them."""

    marks: np.ndarray  # slope towards the light, zero mean, about +-1
    sheen: np.ndarray  # the streak of the highlight, 0..1


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Smooth noise in about -1..1 with `cells` bumps over the frame's height."""
    height, width = shape
    rows = max(2, int(round(cells)) + 1)
    columns = max(2, int(round(cells * width / height)) + 1)
    grid = rng.uniform(-1, 1, (rows, columns)).astype(F)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _profile(rng: np.random.Generator, grooves: int, per_groove: int) -> np.ndarray:
    """A one-dimensional run of tool marks: regular grooves, each a little different."""
    phase = np.arange(grooves * per_groove) / per_groove
    wander = np.repeat(rng.normal(0, 0.12, grooves), per_groove)
    depth = np.repeat(rng.uniform(0.55, 1.25, grooves), per_groove)
    regular = np.sin(2 * np.pi * (phase + wander)) + 0.4 * np.sin(4 * np.pi * phase + 1.0)
    fine = rng.normal(0, 0.35, grooves * per_groove)
    return (regular * depth + fine).astype(F) * F(0.7)


def _look_up(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    return table.take(at.astype(np.int32), mode="wrap")


def part_coordinates(scene: Scene, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Frame coordinates turned, foreshortened and scaled into the part's own."""
    c, s = F(np.cos(scene.rotation)), F(np.sin(scene.rotation))
    y = frame.y / F(np.cos(scene.tilt)) * (1 + F(np.sin(scene.tilt)) * frame.y)
    inverse = F(1 / scene.magnification)
    return (c * frame.x + s * y) * inverse, (c * y - s * frame.x) * inverse


def _light_in_part(scene: Scene) -> tuple[float, float]:
    angle = scene.azimuth - scene.rotation
    return float(np.cos(angle)), float(np.sin(angle))


def _turned(rng, scene: Scene, p, q) -> Surface:
    away = rng.uniform(0.0, 1.1)
    angle = rng.uniform(0, 2 * np.pi)
    p, q = p - F(away * np.cos(angle)), q - F(away * np.sin(angle))
    radius = np.sqrt(p * p + q * q) + F(1e-4)
    lp, lq = _light_in_part(scene)
    towards = (p * F(lp) + q * F(lq)) / radius
    marks = _look_up(_profile(rng, 300, 16), radius * F(16 / scene.pitch))
    sharp = rng.uniform(2.0, 7.0)
    return Surface(marks * towards, np.abs(towards) ** F(sharp))


def _milled(rng, scene: Scene, p, q) -> Surface:
    cutter = rng.uniform(0.25, 0.6)
    step = cutter * rng.uniform(0.9, 1.6)
    q = q + F(rng.uniform(0, step))
    lane = np.floor(q / F(step)).astype(np.int32)
    across = q - (lane.astype(F) + F(0.5)) * F(step)
    along = np.sqrt(np.maximum(F(cutter**2) - across * across, F(1e-3)))
    one_way = bool(rng.random() < 0.5)
    turn = F(1) if one_way else np.where(lane % 2 == 0, F(1), F(-1))
    offset = rng.uniform(0, 40, 64).astype(F).take(lane, mode="wrap")
    arc = (p + turn * along) / F(scene.pitch * 1.3) + offset + F(60)
    marks = _look_up(_profile(rng, 300, 16), arc * F(16))
    lp, lq = _light_in_part(scene)
    normal = across / along
    towards = (F(lp) - turn * F(lq) * normal) / np.sqrt(1 + normal * normal)
    shade = rng.uniform(0.55, 1.0, 64).astype(F).take(lane, mode="wrap")
    seam = np.exp(-((np.abs(across) - F(step / 2)) / F(0.004)) ** 2)
    return Surface(marks * towards - F(0.8) * seam, np.abs(towards) ** F(3) * shade)


def _streaks(rng, scene: Scene, p, q, fine: float, length: float) -> np.ndarray:
    """Noise drawn out along p: `fine` lines to one pitch, each about `length` long."""
    rows, columns = 2048, 64
    table = rng.normal(0, 1, (rows, columns)).astype(F)
    table = (table + np.roll(table, 1, 0) * F(0.6)) * F(0.8)
    row = (q * F(fine / scene.pitch)).astype(np.int32) % rows
    at = p * F(1 / length) + rng.uniform(0, 1, rows).astype(F).take(row) * F(columns) + F(columns)
    left = at.astype(np.int32)
    part = at - left
    flat = table.ravel()
    base = row * columns
    return flat.take(base + left % columns) * (1 - part) + flat.take(base + (left + 1) % columns) * part


def _brushed(rng, scene: Scene, p, q) -> Surface:
    long, short = rng.uniform(0.5, 1.5), rng.uniform(0.15, 0.4)
    marks = F(0.75) * _streaks(rng, scene, p, q + 3, 3.0, long)
    marks += F(0.45) * _streaks(rng, scene, p, q + 5, 1.2, short)
    _, lq = _light_in_part(scene)
    middle, wide = rng.uniform(-0.4, 0.4), rng.uniform(0.15, 0.5)
    sheen = np.exp(-(((p - F(middle)) / F(wide)) ** 2))
    return Surface(marks * F(0.35 + 0.65 * abs(lq)), sheen)


def _ground(rng, scene: Scene, p, q) -> Surface:
    lean = F(rng.uniform(-0.06, 0.06))
    marks = F(0.6) * _streaks(rng, scene, p, q + 3, 3.5, rng.uniform(0.04, 0.12))
    marks += F(0.45) * _streaks(rng, scene, p, q + lean * p + 5, 2.0, rng.uniform(0.1, 0.25))
    chatter = rng.uniform(0.03, 0.09)
    marks += F(rng.uniform(0.0, 0.3)) * np.sin(p * F(2 * np.pi / chatter))
    _, lq = _light_in_part(scene)
    middle, wide = rng.uniform(-0.4, 0.4), rng.uniform(0.3, 0.7)
    sheen = np.exp(-(((p - F(middle)) / F(wide)) ** 2))
    return Surface(marks * F(0.4 + 0.6 * abs(lq)), sheen)


_TEXTURES = {"turned": _turned, "milled": _milled, "brushed": _brushed, "ground": _ground}


def surface(rng: np.random.Generator, scene: Scene, frame: Frame) -> Surface:
    """Tool marks and sheen of the scene's texture."""
    p, q = part_coordinates(scene, frame)
    return _TEXTURES[scene.texture](rng, scene, p, q)


def lighting(rng: np.random.Generator, scene: Scene, frame: Frame) -> np.ndarray:
    """How much light falls where: a gradient, a soft spot, and a little unevenness."""
    towards = frame.x * F(frame.light_x) + frame.y * F(frame.light_y)
    light = 1 + F(scene.light_gradient) * towards * F(1.2)
    cx, cy, wide = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4), rng.uniform(0.5, 1.0)
    spot = np.exp(-((frame.x - F(cx)) ** 2 + (frame.y - F(cy)) ** 2) / F(wide**2))
    light *= F(0.75) + F(0.4) * spot
    light *= 1 + F(0.05) * smooth_noise(rng, frame.shape, 3)
    return np.maximum(light, F(0.05))
