"""CARD.md: what a bundle is, what it was trained on, how well it does, where it stops.

**Invariant:** every result in a card was measured in the run that wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .scene import CALIBRATION, LABELS, TEST, TRAINING, Intervals, Ranges

ROWS = {
    "frame_height": ("frame height, pixels (width 4/3 of it)", "{:.0f}"),
    "magnification": ("magnification", "{:.2f}"),
    "rotation": ("rotation of the part, degrees", "{:.0f}"),
    "tilt": ("tilt of the camera, degrees", "{:.0f}"),
    "pitch": ("pitch of tool marks, frame heights", "{:.3f}"),
    "relief": ("contrast of tool marks", "{:.2f}"),
    "light_elevation": ("elevation of the light, degrees", "{:.0f}"),
    "light_gradient": ("fall of light across the frame", "{:.2f}"),
    "highlight": ("strength of the highlight", "{:.2f}"),
    "exposure": ("exposure, stops", "{:+.2f}"),
    "colour_temperature": ("colour of the light, kelvin", "{:.0f}"),
    "blur": ("blur, sigma, thousandths of the frame height", "{:.1f}"),
    "motion": ("movement, thousandths of the frame height", "{:.1f}"),
    "noise": ("sensor noise, of full scale", "{:.3f}"),
    "jpeg_quality": ("JPEG quality", "{:.0f}"),
    "features": ("holes, edges, slots, steps, marks", "{:.0f}"),
    "severity": ("severity of the defect", "{:.2f}"),
}


@dataclass
class Measured:
    """One variant of one bundle."""

    variant: str
    bytes: int
    test: dict[str, float]
    calibration: dict[str, float]
    confusion: np.ndarray


def _intervals(intervals: Intervals, form: str) -> str:
    return " or ".join(f"{form.format(low)} to {form.format(high)}" for low, high in intervals)


def ranges_table() -> str:
    """Training, calibration and test ranges side by side."""
    lines = ["| property | training | calibration | test |", "|---|---|---|---|"]
    for field in fields(Ranges):
        if field.name == "metals":
            continue
        name, form = ROWS[field.name]
        cells = [_intervals(getattr(r, field.name), form) for r in (TRAINING, CALIBRATION, TEST)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    metals = [", ".join(r.metals) for r in (TRAINING, CALIBRATION, TEST)]
    lines.append("| metal | " + " | ".join(metals) + " |")
    lines.append("| texture | turned, milled, brushed, ground | the same | the same |")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _results(measured: list[Measured]) -> str:
    lines = [
        "| variant | file | accuracy, test | calibration error, test | accepted at the threshold, test | right of the accepted, test | accuracy, calibration scenes | right of the accepted, calibration scenes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        t, c = m.test, m.calibration
        lines.append(
            f"| {m.variant} | {m.bytes / 1024:.0f} KiB | **{_percent(t['accuracy'])}** | {t['calibration_error']:.3f} | "
            f"{_percent(t['accepted'])} | {_percent(t['accepted_accuracy'])} | {_percent(c['accuracy'])} | "
            f"{_percent(c['accepted_accuracy'])} |"
        )
    return "\n".join(lines)


def _per_class(m: Measured) -> str:
    lines = ["| is | found (recall) | right when answered (precision) |", "|---|---|---|"]
    for i, label in enumerate(LABELS):
        found = m.confusion[i, i] / max(1, m.confusion[i].sum())
        right = m.confusion[i, i] / max(1, m.confusion[:, i].sum())
        lines.append(f"| {label} | {_percent(found)} | {_percent(right)} |")
    return "\n".join(lines)


def _escapes(m: Measured) -> str:
    missed = m.confusion[1:, 0].sum() / m.confusion[1:].sum()
    alarms = m.confusion[0, 1:].sum() / m.confusion[0].sum()
    return (
        f"Of the defective parts {_percent(missed)} were called good; of the good parts {_percent(alarms)} were called "
        "defective. Those are the two numbers that matter on a line, and the threshold trades one against the other."
    )


def card(title: str, facts: dict[str, Any], measured: list[Measured], together: str) -> str:
    """The whole card; measured[0] is the default variant."""
    first = measured[0]
    return f"""# {title}

Tells good machined metal surfaces from **scratched**, **dented**, **stained** and **cracked** ones in a camera frame.

**It is trained on synthetic images and on nothing else.** Every frame it ever saw, and every frame it was measured on,
was rendered by `models/train/parts`. It has never seen a real part. The accuracy below says how well it carries over to
*rendered* frames under light, optics and surfaces that training did not have; it says nothing certain about your camera
and your parts. Use it as a working example and as a starting point: before it decides anything, measure it on a few
hundred labelled frames of your own line, fit temperature and threshold on those, and expect to train again with them.

| | |
|---|---|
| input | one frame, JPEG, PNG or WebP, colour, stretched to {facts['width']} x {facts['height']} (made for 4:3 frames) |
| output | 5 logits: {', '.join(LABELS)} |
| network | {facts['network']} |
| size | {facts['parameters']:,} parameters, {facts['operations'] / 1e6:.0f} million multiply-accumulates |
| temperature | {facts['temperature']} |
| threshold | {facts['threshold']} |
| licence | MIT OR Apache-2.0: renderer, training, weights and sample frames are this project's own work |

## Results

{facts['test_count']:,} test scenes (seed {facts['test_seed']}), as many of each class, rendered with other ranges than training.
The test is harsh on purpose: nearly every property of a frame lies outside its training range at once (table below). The
calibration scenes, half of the way out, are nearer to what use is like.

{_results(measured)}

{together}

![confusion matrix of {first.variant} on the test scenes](confusion.png)

{first.variant}, by class:

{_per_class(first)}

{_escapes(first)}

## Confidence

The temperature was fitted on {facts['calibration_count']:,} calibration scenes (seed {facts['calibration_seed']}, ranges half-way between training and
test, other scenes than either) for the {first.variant} variant, and the threshold is the lowest confidence above which 97 % of its
answers to those scenes were right. The calibration error is over 15 equal bins.

## Scenes

Scenes are rendered at the camera's size, go through blur, noise and a JPEG file, and are then resized as the agent
resizes them (bilinear, antialiased). Lengths are in frame heights, so a range means the same at every frame size. Good
parts carry holes, threads, chamfers, slots, shoulders, engraved or lasered marks and specks of dust as defective ones do;
a frame has defects of one kind only. Training adds mirror images, gain within 20 % (10 % between colours) and a little noise.

{ranges_table()}

{facts['training_count']:,} training scenes (seed {facts['training_seed']}), {facts['epochs']} epochs.

## Tolerance

ONNX Runtime and tract differ by a few int8 steps, and JPEG decoders by a level in a few pixels: behind the agent's own decoder
fp32 logits of the samples moved by up to 0.1 and int8 ones by up to 0.3. bundle.toml allows 0.25 and 0.75.

## Limits

- Synthetic only, see above. No real dirt, coatings, cast skin, threads seen from the side, reflections of the room, or people's hands.
- One part surface filling most of the frame. A frame without metal gets one of the five answers all the same.
- One kind of defect in a frame; with two, either may be answered. It does not say where the defect is.
- The thinnest lines rendered (those of a scuff) are about 1/270 of the frame's height wide, the smallest dents 1/14 across;
  whether anything finer is found was not measured, and shrinking the frame to {facts['width']} x {facts['height']} speaks against it.
- Frames that are not 4:3 are squeezed; so far nobody measured how much that costs.

## Reproduce

```
python models/train/part_inspection.py --out models/bundles    # renders, trains, quantises, writes both bundles
python models/train/part_inspection.py --evaluate              # renders the test scenes again and measures the committed files
```

CPU only. Seeds are fixed and rendering is exact for the pinned requirements; training on another kind of processor may
end at slightly different weights.
"""
