"""What belongs on a part: edges, holes, slots, steps, engraved marks, specks of dust.

None of these is a defect; they are drawn on good and on bad parts alike.

**Invariant:** a feature changes the canvas in place and says where defects may not hide.
"""

from __future__ import annotations

import numpy as np

from .scene import Scene
from .surface import F, Frame, smooth_noise

# Engraved characters as strokes on a grid two wide and four high, y downwards.
GLYPHS = {
    "0": [[(0, 0), (2, 0), (2, 4), (0, 4), (0, 0)]],
    "1": [[(0.3, 1), (1.2, 0), (1.2, 4)]],
    "2": [[(0, 0.6), (0.6, 0), (1.6, 0), (2, 0.7), (2, 1.4), (0, 4), (2, 4)]],
    "3": [[(0, 0), (2, 0), (1, 1.7), (2, 2.5), (1.6, 4), (0, 4)]],
    "4": [[(1.5, 4), (1.5, 0), (0, 2.8), (2, 2.8)]],
    "5": [[(2, 0), (0, 0), (0, 1.7), (1.6, 1.7), (2, 2.4), (1.6, 4), (0, 4)]],
    "7": [[(0, 0), (2, 0), (0.6, 4)]],
    "8": [[(0, 0), (2, 0), (2, 4), (0, 4), (0, 0)], [(0, 1.9), (2, 1.9)]],
    "A": [[(0, 4), (1, 0), (2, 4)], [(0.4, 2.6), (1.6, 2.6)]],
    "E": [[(2, 0), (0, 0), (0, 4), (2, 4)], [(0, 1.9), (1.5, 1.9)]],
    "H": [[(0, 0), (0, 4)], [(2, 0), (2, 4)], [(0, 2), (2, 2)]],
    "K": [[(0, 0), (0, 4)], [(2, 0), (0, 2.2), (2, 4)]],
    "M": [[(0, 4), (0, 0), (1, 2), (2, 0), (2, 4)]],
    "T": [[(0, 0), (2, 0)], [(1, 0), (1, 4)]],
    "X": [[(0, 0), (2, 4)], [(2, 0), (0, 4)]],
}


def stroke(field: np.ndarray, points: np.ndarray, widths: np.ndarray, strength: np.ndarray) -> None:
    """Draw a line of varying width (pixels) and strength into a field, by maximum, anti-aliased."""
    height, width = field.shape
    for i in range(len(points) - 1):
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        wide = 0.5 * (widths[i] + widths[i + 1])
        full = 0.5 * (strength[i] + strength[i + 1])
        pad = wide / 2 + 1.5
        left, right = int(max(0, min(x0, x1) - pad)), int(min(width, max(x0, x1) + pad + 1))
        top, bottom = int(max(0, min(y0, y1) - pad)), int(min(height, max(y0, y1) + pad + 1))
        if left >= right or top >= bottom:
            continue
        xs = np.arange(left, right, dtype=F)[None, :]
        ys = np.arange(top, bottom, dtype=F)[:, None]
        dx, dy = F(x1 - x0), F(y1 - y0)
        along = ((xs - F(x0)) * dx + (ys - F(y0)) * dy) / F(dx * dx + dy * dy + 1e-6)
        np.clip(along, 0, 1, out=along)
        away = np.sqrt((xs - F(x0) - along * dx) ** 2 + (ys - F(y0) - along * dy) ** 2)
        cover = np.clip(F(wide / 2 + 0.5) - away, 0, F(min(1.0, wide))) * F(full)
        window = field[top:bottom, left:right]
        np.maximum(window, cover, out=window)


def slope_towards_light(frame: Frame, depth: np.ndarray) -> np.ndarray:
    """Of a depth map in pixels: positive where the wall faces the light."""
    gy, gx = np.gradient(depth)
    return gx * F(frame.light_x) + gy * F(frame.light_y)


class Canvas:
    """Luminance and colour while a frame is being made."""

    def __init__(self, frame: Frame, luminance: np.ndarray):
        self.frame = frame
        self.luminance = luminance
        self.tint: np.ndarray | None = None  # height x width x 3, multiplies the colour
        self.part = np.ones(frame.shape, F)  # 1 on the part, 0 on background and in holes
        self.defect = np.zeros(frame.shape, F)  # 1 where the defect is; only training looks at it

    def place(self, rng: np.random.Generator, margin: float = 0.12) -> tuple[float, float]:
        """A spot on the part, in pixels, where something can be seen."""
        height, width = self.frame.shape
        x = y = 0.0
        for _ in range(24):
            x, y = rng.uniform(margin, 1 - margin) * width, rng.uniform(margin, 1 - margin) * height
            if self.part[int(y), int(x)] > 0.9:
                break
        return x, y


def _ramp(distance: np.ndarray, pixels: int) -> np.ndarray:
    """1 inside (negative distance), 0 outside, one pixel of edge."""
    return np.clip(F(0.5) - distance * F(pixels), 0, 1)


def _edge(rng, scene: Scene, canvas: Canvas) -> None:
    """The part ends; behind it lies the table."""
    frame = canvas.frame
    angle = rng.uniform(0, 2 * np.pi)
    nx, ny = float(np.cos(angle)), float(np.sin(angle))
    at = rng.uniform(0.28, 0.5)
    curve = rng.uniform(-0.25, 0.25)
    across = frame.x * F(nx) + frame.y * F(ny)
    along = frame.y * F(nx) - frame.x * F(ny)
    distance = across - F(at) + F(curve) * along * along
    facing = nx * frame.light_x + ny * frame.light_y
    chamfer = rng.uniform(0.006, 0.03)
    band = _ramp(np.abs(distance + F(chamfer / 2)) - F(chamfer / 2), frame.pixels)
    bright = 0.55 + 0.5 * facing + rng.uniform(-0.05, 0.1)
    canvas.luminance += band * (F(max(bright, 0.08)) - canvas.luminance) * F(0.85)
    outside = 1 - _ramp(distance, frame.pixels)
    table = F(rng.uniform(0.02, 0.3)) * (1 + F(0.25) * smooth_noise(rng, frame.shape, rng.uniform(2, 14)))
    canvas.luminance += outside * (table - canvas.luminance)
    canvas.part *= 1 - outside
    canvas.part[band > 0.5] *= F(0.5)


def _hole(rng, scene: Scene, canvas: Canvas) -> None:
    """A drilled or countersunk hole: a lit chamfer ring and a dark bore."""
    frame = canvas.frame
    cx, cy = rng.uniform(-0.55, 0.55), rng.uniform(-0.42, 0.42)
    radius = rng.uniform(0.03, 0.12) * scene.magnification
    rim = radius * rng.uniform(0.1, 0.45)
    dx, dy = frame.x - F(cx), (frame.y - F(cy)) / F(np.cos(scene.tilt))
    distance = np.sqrt(dx * dx + dy * dy) + F(1e-5)
    towards = (dx * F(frame.light_x) + dy * F(frame.light_y)) / distance
    ring = _ramp(distance - F(radius + rim), frame.pixels)
    shade = F(0.42) - F(0.38) * towards
    canvas.luminance += ring * (shade - canvas.luminance) * F(0.9)
    bore = _ramp(distance - F(radius), frame.pixels)
    wall = F(0.04) + F(0.16) * np.clip(-towards * distance / F(radius), 0, 1) ** 2
    if rng.random() < 0.4:  # a thread
        wall = wall * (1 + F(0.7) * np.sin(distance * F(2 * np.pi / (radius * 0.16))))
    canvas.luminance += bore * (wall - canvas.luminance)
    canvas.part *= 1 - ring


def _slot(rng, scene: Scene, canvas: Canvas) -> None:
    """A milled pocket with round ends."""
    frame = canvas.frame
    cx, cy = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4)
    half, radius = rng.uniform(0.06, 0.2), rng.uniform(0.025, 0.06)
    angle = rng.uniform(0, np.pi)
    c, s = F(np.cos(angle)), F(np.sin(angle))
    u = (frame.x - F(cx)) * c + (frame.y - F(cy)) * s
    v = (frame.y - F(cy)) * c - (frame.x - F(cx)) * s
    over = u - np.clip(u, F(-half), F(half))
    distance = np.sqrt(over * over + v * v) - F(radius)
    inside = _ramp(distance, frame.pixels)
    wall = np.clip(1 + distance / F(0.014), 0, 1) * inside
    facing = (over * (c * F(frame.light_x) + s * F(frame.light_y)) + v * (c * F(frame.light_y) - s * F(frame.light_x)))
    facing = facing / (np.sqrt(over * over + v * v) + F(1e-5))
    floor = canvas.luminance * F(rng.uniform(0.35, 0.7))
    canvas.luminance += inside * (floor - canvas.luminance)
    canvas.luminance += wall * (F(0.35) - F(0.33) * facing - canvas.luminance) * F(0.9)
    canvas.part *= 1 - inside


def _step(rng, scene: Scene, canvas: Canvas) -> None:
    """A shoulder: a straight line from frame edge to frame edge, two levels of brightness."""
    frame = canvas.frame
    angle = rng.uniform(0, 2 * np.pi)
    nx, ny = float(np.cos(angle)), float(np.sin(angle))
    distance = frame.x * F(nx) + frame.y * F(ny) - F(rng.uniform(-0.35, 0.35))
    facing = nx * frame.light_x + ny * frame.light_y
    wide = rng.uniform(0.006, 0.018)
    line = _ramp(np.abs(distance) - F(wide / 2), frame.pixels)
    beyond = 1 - _ramp(distance, frame.pixels)
    canvas.luminance *= 1 + beyond * canvas.part * F(rng.uniform(-0.2, 0.12))
    canvas.luminance *= 1 + line * canvas.part * F(np.clip(0.75 * facing, -0.6, 0.8))
    canvas.part *= 1 - line * F(0.5)


def _mark(rng, scene: Scene, canvas: Canvas) -> None:
    """A part number, engraved, stamped or lasered."""
    frame = canvas.frame
    letters = sorted(GLYPHS)
    text = [letters[int(i)] for i in rng.integers(len(letters), size=int(rng.integers(2, 7)))]
    size = rng.uniform(0.012, 0.028) * frame.pixels * scene.magnification
    angle = scene.rotation + rng.choice([0.0, np.pi / 2])
    c, s = np.cos(angle), np.sin(angle)
    ox, oy = rng.uniform(0.1, 0.8) * frame.shape[1], rng.uniform(0.1, 0.8) * frame.shape[0]
    wide = size * rng.uniform(0.28, 0.5)
    field = np.zeros(frame.shape, F)
    for place, letter in enumerate(text):
        for line in GLYPHS[letter]:
            points = np.array(line) * size + np.array([place * 3.0 * size, 0.0])
            points = points @ np.array([[c, s], [-s, c]]) + np.array([ox, oy])
            stroke(field, points, np.full(len(points), wide), np.ones(len(points)))
    field *= canvas.part
    if rng.random() < 0.4:  # lasered: flat and dark
        canvas.luminance *= 1 - field * F(rng.uniform(0.35, 0.7))
    else:  # cut into the metal: one wall lit, the other not
        canvas.luminance *= 1 - field * F(rng.uniform(0.1, 0.35))
        canvas.luminance *= np.clip(1 - F(0.9) * slope_towards_light(frame, field), 0.2, 2)
    canvas.part *= 1 - field


def _dust(rng, canvas: Canvas) -> None:
    """A few specks, bright or dark, too small to matter."""
    frame = canvas.frame
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(0, frame.shape[1]), rng.uniform(0, frame.shape[0])
        field_points = np.array([[x, y], [x + rng.normal(0, 1.5), y + rng.normal(0, 1.5)]])
        field = np.zeros((1, 1), F)
        left, top = int(max(0, x - 6)), int(max(0, y - 6))
        window = canvas.luminance[top : top + 12, left : left + 12]
        if window.size == 0:
            continue
        field = np.zeros(window.shape, F)
        wide = rng.uniform(0.7, 2.2) * frame.pixels / 400
        stroke(field, field_points - np.array([left, top]), np.full(2, wide), np.ones(2))
        window *= 1 + field * F(rng.uniform(-0.5, 0.6))


_FEATURES = [_edge, _hole, _hole, _slot, _step, _mark, _mark]


def features(rng: np.random.Generator, scene: Scene, canvas: Canvas) -> None:
    """Draw the scene's number of features, and dust."""
    had_edge = False
    for _ in range(scene.features):
        feature = _FEATURES[int(rng.integers(len(_FEATURES)))]
        if feature is _edge:
            if had_edge:
                continue
            had_edge = True
        feature(rng, scene, canvas)
    _dust(rng, canvas)
