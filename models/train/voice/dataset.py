"""The pool of augmented features that training draws from, and the clips it is measured on.

Invariant: `Pool` is made of training speakers and training voices only; everything is drawn from one seed.
"""

import pickle
import shutil
import time

import numpy as np

from . import augment, frontend, speech

HELD_OUT_SEED = 7


class Pool:
    """Augmented features in three parts: real words, synthetic words, silence."""

    def __init__(self, rows, seed, scale):
        rng = np.random.default_rng(seed)
        train, _ = speech.split(rows)
        said = [r for r in train if r[1] != speech.SILENCE]
        silences = [r[0] for r in train if r[1] == speech.SILENCE]
        noises = augment.Noises(rng, silences, [r[0] for r in said])
        clips = speech.synthesise(speech.variants()[0], int(240 * scale), max(1, int(14 * scale)), seed)
        self.real = self._spoken(rng, noises, [r[:2] for r in said], max(1, int(24 * scale)), False)
        self.synthetic = self._spoken(rng, noises, [c[:2] for c in clips], 4, True)
        self.silence = self._silence(rng, noises, silences, max(60, int(3000 * scale)))

    @staticmethod
    def _spoken(rng, noises, clips, copies, synthetic):
        parts, labels = [], []
        for start in range(0, len(clips), 64):
            chunk = clips[start : start + 64]
            for _ in range(copies):
                waves = [augment.spoken(rng, wave, noises, synthetic) for wave, _ in chunk]
                parts.append(augment.to_features(rng, waves))
                labels += [label for _, label in chunk]
        return np.concatenate(parts), np.array(labels)

    @staticmethod
    def _silence(rng, noises, silences, count):
        parts = []
        for _ in range(count // 60):
            waves = [augment.quiet(rng, noises) for _ in range(40)]
            waves += [np.roll(augment.place(silences[i], 0), rng.integers(16000)) for i in rng.integers(len(silences), size=20)]
            parts.append(augment.to_features(rng, waves))
        features = np.concatenate(parts)
        return features, np.full(len(features), speech.SILENCE)

    def parts(self):
        """The three parts, each (features, labels)."""
        return [self.real, self.synthetic, self.silence]

    def batches(self, seed, targets, shares, masks, bent):
        """Endless batches (features f32, targets [n, classes]).

        `targets` has an array for each part, `shares` how many of each part; `masks` is how many of SpecAugment a clip;
        `bent` clips are also stretched in time and along the bands.
        """
        rng = np.random.default_rng(seed)
        while True:
            picks = [rng.integers(len(labels), size=share) for (_, labels), share in zip(self.parts(), shares)]
            x = np.concatenate([part[0][pick] for part, pick in zip(self.parts(), picks)]).astype(np.float32)
            y = np.concatenate([target[pick] for target, pick in zip(targets, picks)]).astype(np.float32)
            yield disturb(rng, bend(rng, x) if bent else x, y, masks)


def bend(rng, x):
    """Clips stretched about their middle: time by up to a fifth, bands by some per cent and up to 1.5 bands; tilted."""
    n, frames, bands = x.shape
    time = (np.arange(frames) - frames / 2) * np.exp(rng.uniform(-0.2, 0.2, (n, 1))) + frames / 2
    band = (np.arange(bands) - bands / 2) * np.exp(rng.uniform(-0.06, 0.06, (n, 1))) + bands / 2
    band = band + rng.uniform(-1.5, 1.5, (n, 1))
    out = np.empty_like(x)
    for i in range(n):
        at, part = _between(time[i], frames)
        rows = x[i][at] * (1 - part[:, None]) + x[i][at + 1] * part[:, None]
        at, part = _between(band[i], bands)
        out[i] = rows[:, at] * (1 - part) + rows[:, at + 1] * part
    return out + (rng.normal(0, 0.15, (n, 1, 1)) * np.linspace(-1, 1, bands)).astype(np.float32)


def _between(position, size):
    """The index below each position, and how far it lies towards the next."""
    position = np.clip(position, 0, size - 1.001)
    at = position.astype(int)
    return at, (position - at).astype(np.float32)


def disturb(rng, x, y, masks):
    """Shift, level, masks of time and of bands, then mixup of half of the clips."""
    n, frames, bands = x.shape
    for i in range(n):
        x[i] = np.roll(x[i], rng.integers(-3, 4), axis=0)
        x[i] += rng.normal(0, 0.1)
        for _ in range(masks):
            width, at = rng.integers(0, 9), rng.integers(frames)
            x[i, at : at + width] = 0.0
            width, at = rng.integers(0, 7), rng.integers(bands)
            x[i, :, at : at + width] = 0.0
    other = rng.permutation(n)
    part = rng.beta(0.3, 0.3, n).astype(np.float32)
    part = np.where(rng.random(n) < 0.5, np.maximum(part, 1 - part), 1.0).astype(np.float32)
    x = part[:, None, None] * x + (1 - part[:, None, None]) * x[other]
    return x, part[:, None] * y + (1 - part[:, None]) * y[other]


def held_out(rows):
    """{name: (features, labels)}: held-out speakers as recorded, the same in noise, held-out espeak voices."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    train, held = speech.split(rows)
    noises = augment.Noises(rng, [r[0] for r in held if r[1] == speech.SILENCE], [r[0] for r in train[:300]])
    clean = np.stack([frontend.features(r[0]) for r in held])
    labels = np.array([r[1] for r in held])
    noisy = []
    for _ in range(3):
        noisy += [in_noise(rng, r[0], noises, rng.uniform(3, 25)) for r in held]
    sets = {
        "speakers": (clean, labels),
        "noisy": (np.stack([frontend.features(w) for w in noisy]), np.tile(labels, 3)),
    }
    if shutil.which("espeak-ng"):
        voices = synthetic_test()
        sets["voices"] = (np.stack([frontend.features(w) for w, _, _ in voices]), np.array([c[1] for c in voices]))
    return sets


def in_noise(rng, wave, noises, snr):
    """The clip with noise `snr` decibels below it."""
    wave = augment.place(wave, 0)
    level = max(1e-4, float(np.sqrt(np.mean(wave**2))))
    return wave + noises.draw(rng) * (level * 10 ** (-snr / 20))


def synthetic_test():
    """Clips of espeak voices that training did not hear: [(clip of one second, label, word)], words placed at random."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    clips = speech.synthesise(speech.variants()[1], 20, 1, HELD_OUT_SEED)
    out = []
    for wave, label, word in clips:
        at = int(rng.integers(0, max(1, augment.CLIP - len(wave))))
        clip = augment.place(wave * 0.5, at) + augment.coloured_noise(rng) * 0.5 * 10 ** (-rng.uniform(30, 50) / 20)
        out.append((clip.astype(np.float32), label, word))
    return out


def prepared(folder, seed, scale, cache):
    """(pool, held-out sets) of a training folder; kept in `cache` (a file) when one is given."""
    if cache is not None and cache.exists():
        with open(cache, "rb") as handle:
            return pickle.load(handle)
    began = time.time()
    rows = speech.recordings(folder)
    made = (Pool(rows, seed, scale), held_out(rows))
    print(f"pool of {sum(len(p[1]) for p in made[0].parts())} clips in {time.time() - began:.0f} s", flush=True)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(cache, "wb") as handle:
            pickle.dump(made, handle)
    return made
