"""Scenes: which values each property of a frame may take, and one drawn set of them.

**Invariant:** a scene is a function of (ranges, seed, label) alone, so a test set is named by its
seeds and is rendered again rather than stored.

Lengths are in frame heights, angles in degrees, so a scene looks the same at every frame size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

LABELS = ["good", "scratched", "dented", "stained", "cracked"]
TEXTURES = ["turned", "milled", "brushed", "ground"]

# Linear reflectance of the metal under white light.
METALS = {
    "steel": (0.56, 0.57, 0.58),
    "aluminium": (0.74, 0.75, 0.77),
    "brass": (0.76, 0.64, 0.36),
    "titanium": (0.45, 0.42, 0.39),
    "copper": (0.77, 0.50, 0.38),
    "tool steel": (0.37, 0.38, 0.40),
}

# One or more closed intervals; a value is drawn evenly over their joint length.
Intervals = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Ranges:
    """What may be drawn. The card prints two of these side by side."""

    frame_height: Intervals  # pixels; the width is 4/3 of it
    magnification: Intervals
    rotation: Intervals  # of the part under the camera
    tilt: Intervals  # of the camera: the part is seen foreshortened
    pitch: Intervals  # of tool marks
    relief: Intervals  # contrast of tool marks
    light_elevation: Intervals
    light_gradient: Intervals  # brightness change across the frame
    highlight: Intervals  # strength of the specular streak
    exposure: Intervals  # stops
    colour_temperature: Intervals  # kelvin, the camera balanced for 5500
    blur: Intervals  # Gaussian sigma, thousandths of a frame height
    motion: Intervals  # blur by movement, thousandths of a frame height
    noise: Intervals  # sensor noise, standard deviation of full scale
    jpeg_quality: Intervals
    features: Intervals  # holes, edges, slots, steps, marks: how many are tried
    severity: Intervals  # of the defect, 0 barely there, 1 gross
    metals: tuple[str, ...]


TRAINING = Ranges(
    frame_height=((240, 340),),
    magnification=((0.8, 1.25),),
    rotation=((0, 360),),
    tilt=((0, 8),),
    pitch=((0.009, 0.022),),
    relief=((0.10, 0.32),),
    light_elevation=((32, 60),),
    light_gradient=((0.0, 0.40),),
    highlight=((0.1, 0.55),),
    exposure=((-0.6, 0.45),),
    colour_temperature=((4300, 6800),),
    blur=((0.4, 2.4),),
    motion=((0.0, 2.5),),
    noise=((0.003, 0.014),),
    jpeg_quality=((72, 95),),
    features=((0, 3),),
    severity=((0.3, 1.0),),
    metals=("steel", "aluminium", "brass", "titanium"),
)

TEST = Ranges(
    frame_height=((440, 520),),
    magnification=((0.7, 0.8), (1.25, 1.45)),
    rotation=((0, 360),),
    tilt=((8, 16),),
    pitch=((0.007, 0.009), (0.022, 0.028)),
    relief=((0.06, 0.10), (0.32, 0.42)),
    light_elevation=((24, 32), (60, 68)),
    light_gradient=((0.40, 0.60),),
    highlight=((0.0, 0.1), (0.55, 0.75)),
    exposure=((-0.95, -0.6), (0.45, 0.65)),
    colour_temperature=((3300, 4300), (6800, 8000)),
    blur=((1.6, 3.0),),
    motion=((2.0, 4.0),),
    noise=((0.014, 0.024),),
    jpeg_quality=((50, 72),),
    features=((1, 4),),
    severity=((0.3, 1.0),),
    metals=("steel", "aluminium", "copper", "tool steel"),
)


def _widened(a: Intervals, b: Intervals) -> Intervals:
    """The inner interval and half of the way to the outer ones."""
    low, high = min(i[0] for i in a), max(i[1] for i in a)
    outer_low, outer_high = min(i[0] for i in b), max(i[1] for i in b)
    return ((low + 0.5 * min(0.0, outer_low - low), high + 0.5 * max(0.0, outer_high - high)),)


# Temperature and threshold are fitted here: seeds of its own, ranges half-way out. The metals are
# those of training.
CALIBRATION = Ranges(
    **{
        f.name: _widened(getattr(TRAINING, f.name), getattr(TEST, f.name))
        for f in fields(Ranges)
        if f.name != "metals"
    },
    metals=TRAINING.metals,
)


def draw(rng: np.random.Generator, intervals: Intervals) -> float:
    """One value, evenly over the joint length of the intervals."""
    lengths = np.array([high - low for low, high in intervals], dtype=np.float64)
    if lengths.sum() == 0.0:
        return float(intervals[0][0])
    low, high = intervals[int(rng.choice(len(intervals), p=lengths / lengths.sum()))]
    return float(rng.uniform(low, high))


@dataclass(frozen=True)
class Scene:
    """One drawn frame, before anything is rendered."""

    label: str
    texture: str
    metal: str
    height: int
    width: int
    magnification: float
    rotation: float  # radians
    tilt: float  # radians
    pitch: float
    relief: float
    azimuth: float  # radians, where the light comes from
    elevation: float  # radians
    light_gradient: float
    highlight: float
    exposure: float
    colour_temperature: float
    blur: float  # pixels
    motion: float  # pixels
    noise: float
    jpeg_quality: int
    features: int
    severity: float


def scene(rng: np.random.Generator, ranges: Ranges, label: str) -> Scene:
    """Draw one scene."""
    height = int(round(draw(rng, ranges.frame_height) / 4) * 4)
    return Scene(
        label=label,
        texture=TEXTURES[int(rng.integers(len(TEXTURES)))],
        metal=ranges.metals[int(rng.integers(len(ranges.metals)))],
        height=height,
        width=height * 4 // 3,
        magnification=draw(rng, ranges.magnification),
        rotation=np.deg2rad(draw(rng, ranges.rotation)),
        tilt=np.deg2rad(draw(rng, ranges.tilt)),
        pitch=draw(rng, ranges.pitch),
        relief=draw(rng, ranges.relief),
        azimuth=float(rng.uniform(0, 2 * np.pi)),
        elevation=np.deg2rad(draw(rng, ranges.light_elevation)),
        light_gradient=draw(rng, ranges.light_gradient),
        highlight=draw(rng, ranges.highlight),
        exposure=draw(rng, ranges.exposure),
        colour_temperature=draw(rng, ranges.colour_temperature),
        blur=draw(rng, ranges.blur) * height / 1000,
        motion=draw(rng, ranges.motion) * height / 1000,
        noise=draw(rng, ranges.noise),
        jpeg_quality=int(round(draw(rng, ranges.jpeg_quality))),
        features=int(round(draw(rng, ranges.features))),
        severity=draw(rng, ranges.severity),
    )
