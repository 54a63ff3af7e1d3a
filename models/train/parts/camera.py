"""The camera: colour of the light, exposure, optics, sensor, and the file.

**Invariant:** what comes out is 8-bit RGB that went through a JPEG file, as a camera's frames do.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from .scene import METALS, Scene
from .surface import F


_GAMMA = (255 * (np.arange(4096) / 4095) ** (1 / 2.2)).astype(np.uint8)


def light_colour(kelvin: float, balanced: float = 5500.0) -> np.ndarray:
    """Linear RGB of a black body's light as a camera balanced for another one sees it."""
    wavelengths = np.array([600e-9, 540e-9, 450e-9])

    def planck(t: float) -> np.ndarray:
        return wavelengths**-5 / (np.exp(0.014388 / (wavelengths * t)) - 1)

    colour = planck(kelvin) / planck(balanced)
    return (colour / colour[1]).astype(F)


def _motion_blur(picture: np.ndarray, pixels: float, horizontal: bool) -> np.ndarray:
    """An average over a few neighbours along one axis."""
    taps = int(round(pixels))
    if taps < 2:
        return picture
    axis = 1 if horizontal else 0
    total = picture.astype(np.uint16)
    for shift in range(1, taps):
        total = total + np.roll(picture, shift, axis)
    return (total // taps).astype(np.uint8)


def expose(rng: np.random.Generator, scene: Scene, luminance: np.ndarray, tint: np.ndarray | None) -> np.ndarray:
    """Light to 8-bit RGB."""
    colour = np.array(METALS[scene.metal], F) * light_colour(scene.colour_temperature)
    colour = colour * F(2.0**scene.exposure * 1.5)
    picture = np.maximum(luminance, 0)[..., None] * colour
    if tint is not None:
        picture *= tint
    picture = picture / (1 + F(0.18) * picture * picture)  # the shoulder of the sensor's curve
    np.clip(picture, 0, 1, out=picture)
    image = Image.fromarray(_GAMMA.take((picture * F(4095)).astype(np.uint16)))
    if scene.blur > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur))
    blurred = _motion_blur(np.asarray(image), scene.motion, bool(rng.random() < 0.5))
    grain = rng.standard_normal(blurred.shape, dtype=F)  # of the circuit, and of the light's own count
    grain *= (255 * scene.noise * np.sqrt(0.35 + np.arange(256) / 255)).astype(F).take(blurred)
    grain += blurred
    grain += F(0.5)
    return np.clip(grain, 0, 255, out=grain).astype(np.uint8)


def to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """A JPEG file, 4:2:0."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality, subsampling=2)
    return out.getvalue()


def to_png(picture: np.ndarray) -> bytes:
    """A PNG file."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return out.getvalue()


def front_end(file: bytes, width: int, height: int) -> np.ndarray:
    """A picture file to the network's pixels: decode, RGB, stretch with an antialiased bilinear filter."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
