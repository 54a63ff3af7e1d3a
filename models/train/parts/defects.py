"""What does not belong on a part: scratches, dents, stains, cracks.

Severity runs from 0 (barely there) to 1 (gross) and moves size, depth and number together.

**Invariant:** a frame carries defects of its own label only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .features import Canvas, slope_towards_light, stroke
from .scene import Scene
from .surface import F, smooth_noise


def _seen(canvas: Canvas, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Draw lines until most of them lie on the part, and cut off what does not."""
    field = np.zeros(canvas.frame.shape, F)
    for _ in range(8):
        field = draw()
        on_part = field * canvas.part
        if on_part.sum() > 0.7 * field.sum():
            return on_part
    return field


def _scratch_lines(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> np.ndarray:
    frame, severity = canvas.frame, scene.severity
    field = np.zeros(frame.shape, F)
    lead = rng.uniform(0, np.pi)
    if scene.texture in ("brushed", "ground"):  # along the grain it would not be told from the grain
        lead = scene.rotation + rng.uniform(0.3, np.pi - 0.3)
    scuff = rng.random() < 0.3
    count = int(rng.integers(4, 9)) if scuff else 1 + int(rng.integers(0, 1 + round(3 * severity)))
    x0, y0 = canvas.place(rng, 0.2)
    for i in range(count):
        if i and not scuff:
            x0, y0 = canvas.place(rng, 0.15)
        x, y = x0, y0
        if scuff:
            x, y = x0 + rng.normal(0, 0.03) * frame.pixels, y0 + rng.normal(0, 0.03) * frame.pixels
        angle = lead + rng.normal(0, 0.06 if scuff else 0.5)
        length = (0.16 + 0.55 * severity * rng.uniform(0.4, 1.0)) * frame.pixels
        bend = rng.normal(0, 0.15)
        t = np.linspace(-0.5, 0.5, 13)
        heading = angle + bend * t
        points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * length / 12, 0)
        points += np.array([x, y]) - points[6]
        wide = (0.0044 + 0.0056 * severity * rng.uniform(0.5, 1.0)) * frame.pixels * (0.7 if scuff else 1.0)
        taper = np.clip(1.6 * (1 - np.abs(2 * t) ** 2), 0.15, 1)
        pressure = np.clip(taper * (1 + rng.normal(0, 0.15, 13)), 0.1, 1)
        stroke(field, points, wide * taper, pressure)
    return field


def _scratched(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """Thin, nearly straight, tapering lines across the tool marks: bright burrs or dark furrows."""
    frame, severity = canvas.frame, scene.severity
    field = canvas.defect = _seen(canvas, lambda: _scratch_lines(rng, scene, canvas))
    depth = 0.45 + 0.5 * severity
    if rng.random() < 0.8:  # bare bright metal
        canvas.luminance += field * F(depth) * (F(rng.uniform(0.55, 0.85)) + 0.15 * canvas.luminance)
    else:
        canvas.luminance *= 1 - field * F(min(0.9, depth))
    relief = np.clip(1 - F(0.5 * depth) * slope_towards_light(frame, field), 0.4, 1.6)
    canvas.luminance *= relief


def _dented(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """Hollows from a blow: one side lit, the other in shade, a raised lip, marks pressed flat."""
    frame, severity = canvas.frame, scene.severity
    for _ in range(1 + int(rng.integers(0, 1 + round(2 * severity)))):
        x, y = canvas.place(rng)
        cx, cy = x / frame.pixels - frame.shape[1] / frame.pixels / 2, y / frame.pixels - 0.5
        size = rng.uniform(0.03, 0.05) + 0.06 * severity * rng.uniform(0.4, 1.0)
        stretch, angle = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        c, s = F(np.cos(angle)), F(np.sin(angle))
        dx, dy = frame.x - F(cx), frame.y - F(cy)
        u, v = dx * c + dy * s, (dy * c - dx * s) / F(stretch)
        r2 = (u * u + v * v) / F(size**2)
        uneven = 1 + F(0.2) * smooth_noise(rng, frame.shape, 12)
        steep = rng.uniform(0.9, 1.6)
        bowl = np.exp(-(r2 ** F(steep)) * uneven)
        np.maximum(canvas.defect, bowl, out=canvas.defect)
        lip = np.exp(-((np.sqrt(r2) - F(1.25)) ** 2) / F(0.06)) * F(rng.uniform(0.1, 0.4))
        slope = slope_towards_light(frame, (bowl - lip) * F(size * frame.pixels))
        depth = (0.45 + 0.6 * severity) * np.tan(np.pi / 2 - scene.elevation) ** 0.5
        flat = canvas.luminance.mean()
        canvas.luminance += bowl * F(0.45) * (flat - canvas.luminance)
        lit = -slope * F(depth)
        canvas.luminance *= np.clip(1 + lit, F(0.15), F(2.2))
        glint = np.clip(lit - F(0.35), 0, 1) ** 2
        canvas.luminance += glint * F(0.8 * scene.highlight + 0.1) * canvas.part


def _stained(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """Oil, rust, or dried coolant: soft patches of another colour, often with a tide mark."""
    frame, severity = canvas.frame, scene.severity
    kind = ("oil", "rust", "coolant")[int(rng.integers(3))]
    cover = np.zeros(frame.shape, F)
    rim = np.zeros(frame.shape, F)
    ragged = smooth_noise(rng, frame.shape, 7) * F(0.6) + smooth_noise(rng, frame.shape, 22) * F(0.3)
    for _ in range(1 + int(rng.integers(0, 1 + round(3 * severity)))):
        x, y = canvas.place(rng)
        cx, cy = x / frame.pixels - frame.shape[1] / frame.pixels / 2, y / frame.pixels - 0.5
        size = rng.uniform(0.05, 0.09) + 0.16 * severity * rng.uniform(0.3, 1.0)
        stretch, angle = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
        c, s = F(np.cos(angle)), F(np.sin(angle))
        dx, dy = frame.x - F(cx), frame.y - F(cy)
        u, v = dx * c + dy * s, (dy * c - dx * s) / F(stretch)
        inside = 1 - np.sqrt(u * u + v * v) / F(size) + ragged * F(0.55)
        soft = F(rng.uniform(0.12, 0.5))
        np.maximum(cover, np.clip(inside / soft, 0, 1), out=cover)
        np.maximum(rim, np.exp(-((inside - F(0.06)) ** 2) / F(0.006)), out=rim)
    strength = 0.42 + 0.45 * severity
    mottle = 1 + F(0.25) * smooth_noise(rng, frame.shape, 30)
    if kind == "oil":
        colour = np.array([0.62, 0.52, 0.36]) * rng.uniform(0.5, 1.0)
        amount = cover * F(strength) + rim * F(0.15 * strength)
    elif kind == "rust":
        colour = np.array([0.72, 0.38, 0.18]) * rng.uniform(0.65, 1.0)
        speckle = smooth_noise(rng, frame.shape, 34) * F(0.7) + smooth_noise(rng, frame.shape, 83) * F(0.6)
        speckle = np.clip(speckle + F(0.75), 0, 1)
        amount = cover * F(strength * 1.1) * speckle
    else:
        colour = np.array([0.70, 0.76, 0.74]) * rng.uniform(0.6, 1.0)
        amount = cover * F(0.45 * strength) + rim * F(0.75 * strength)
    amount = np.clip(amount * mottle, 0, 1) * canvas.part
    canvas.defect = np.clip(amount * 2, 0, 1)
    # A film evens out the tool marks and takes the shine.
    flat = canvas.luminance.mean()
    canvas.luminance += amount * F(0.5) * (np.minimum(canvas.luminance, flat) - canvas.luminance)
    canvas.tint = 1 - amount[..., None] * (1 - colour.astype(F))


def _walk(rng, start, heading: float, length: float, steps: int, unrest: float) -> np.ndarray:
    """A path that keeps its heading on the whole and jerks at every step."""
    headings = heading + np.cumsum(rng.normal(0, 0.12, steps)) + rng.normal(0, unrest, steps)
    strides = length / steps * rng.uniform(0.5, 1.5, steps)
    moves = np.stack([np.cos(headings), np.sin(headings)], 1) * strides[:, None]
    return np.concatenate([[start], start + np.cumsum(moves, 0)])


def _crack_lines(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> np.ndarray:
    frame, severity = canvas.frame, scene.severity
    field = np.zeros(frame.shape, F)
    start = np.array(canvas.place(rng, 0.2))
    heading = rng.uniform(0, 2 * np.pi)
    length = (0.28 + 0.52 * severity * rng.uniform(0.5, 1.0)) * frame.pixels
    steps = max(10, int(length / (0.018 * frame.pixels)))
    unrest = rng.uniform(0.6, 0.95)
    wide = (0.0056 + 0.0068 * severity * rng.uniform(0.5, 1.0)) * frame.pixels

    def taper(n: int, first: float) -> np.ndarray:
        body = np.linspace(first, 0.25, n) * rng.uniform(0.6, 1.3, n)
        return np.clip(body, 0.15, 1.3)

    centre = start - 0.4 * length * np.array([np.cos(heading), np.sin(heading)])
    path = _walk(rng, centre, heading, length, steps, unrest)
    body = taper(len(path), 1.0)
    stroke(field, path, wide * body, np.clip(body * 1.6, 0.3, 1))
    for _ in range(int(rng.integers(0, 2 + round(3 * severity)))):
        at = int(rng.integers(2, len(path) - 2))
        turn = heading + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        branch_length = length * rng.uniform(0.12, 0.4)
        branch = _walk(rng, path[at], turn, branch_length, max(4, steps // 4), unrest)
        body_branch = taper(len(branch), float(body[at]) * 0.8)
        stroke(field, branch, wide * body_branch, np.clip(body_branch * 1.5, 0.3, 1))
    return field


def _cracked(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """A dark, jagged, branching line that grows thinner towards its ends."""
    frame = canvas.frame
    field = canvas.defect = _seen(canvas, lambda: _crack_lines(rng, scene, canvas))
    canvas.luminance *= 1 - field * F(0.6 + 0.35 * scene.severity)
    canvas.luminance *= np.clip(1 - F(0.25) * slope_towards_light(frame, field), 0.5, 1.4)


_DEFECTS = {"scratched": _scratched, "dented": _dented, "stained": _stained, "cracked": _cracked}


def defects(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """Draw the label's defect; nothing for a good part."""
    if scene.label in _DEFECTS:
        _DEFECTS[scene.label](rng, scene, canvas)
