"""The frames that a bundle carries: plain ones, and ones that the device's model must send up.

**Invariant:** samples come from the test ranges but from seeds that no measured set has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from .camera import to_jpeg, to_png
from .render import frame_of
from .scene import LABELS, TEST

SEED, CANDIDATES = 4004, 400
MOST_BYTES = 80_000


class Judge(Protocol):
    """A trained bundle as far as choosing needs it."""

    threshold: float

    def answers(self, file: bytes) -> list[tuple[int, float]]:
        """Each variant's label number and confidence for a picture file."""

    def knows(self, file: bytes, label: int) -> bool:
        """Whether every variant is right, and well above the threshold."""


def choose_samples(small: Judge, large: Judge) -> list[tuple[str, str, bytes]]:
    """(name, label, file): two plain frames of each class, a small PNG, and frames that must go up.

    Plain: both models are right and sure of it. Hard: the device's model is below its threshold
    (and takes at most one of them for something else), and the site's is right and sure of it.
    Frames come from the test ranges, by a seed of their own.
    """
    plain: dict[str, list[bytes]] = {label: [] for label in LABELS}
    hard: dict[str, bytes] = {}
    mistaken = 0
    for index in range(CANDIDATES):
        drawn, pixels, _ = frame_of(TEST, SEED, index)
        file = to_jpeg(pixels, drawn.jpeg_quality)
        if len(file) > MOST_BYTES:
            continue
        label = LABELS.index(drawn.label)
        if not large.knows(file, label):
            continue
        if small.knows(file, label):
            if len(plain[drawn.label]) < 2:
                plain[drawn.label].append(file)
        elif drawn.label not in hard and len(hard) < 4:
            answers = small.answers(file)
            is_mistaken = any(answer != label for answer, _ in answers)
            if all(sure < small.threshold - 0.08 for _, sure in answers) and mistaken + is_mistaken <= 1:
                hard[drawn.label] = file
                mistaken += is_mistaken
        if len(hard) == 4 and all(len(files) == 2 for files in plain.values()):
            break
    samples = [(f"{label}-{i + 1}.jpg", label, f) for label, files in plain.items() for i, f in enumerate(files)]
    samples += [(f"hard-{label}.jpg", label, file) for label, file in hard.items()]
    return samples + [_small_png(small, large)]


def _small_png(small: Judge, large: Judge) -> tuple[str, str, bytes]:
    """A frame of a small camera, 176 x 132, as PNG."""
    ranges = replace(TEST, frame_height=((132, 132),))
    for index in range(CANDIDATES):
        drawn, pixels, _ = frame_of(ranges, SEED + 1, index)
        file = to_png(pixels)
        if len(file) > MOST_BYTES or drawn.label == "good":
            continue
        if all(model.knows(file, LABELS.index(drawn.label)) for model in (small, large)):
            return f"{drawn.label}-3.png", drawn.label, file
    raise RuntimeError("no small frame that both models are sure of; look at the models")
