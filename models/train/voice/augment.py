"""Clips as a microphone on a site might have heard them.

Invariant: everything drawn comes from the generator that the caller passes.
"""

import numpy as np

from . import frontend

CLIP = frontend.AUDIO["clip_samples"]
RATE = frontend.AUDIO["sample_rate_hz"]
PADDED = 32768


def coloured_noise(rng, n=CLIP):
    """Noise whose power falls as f^-beta, beta in 0..2, at times with a hum and slow swells; RMS 1."""
    bins = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
    hz = np.fft.rfftfreq(n, 1 / RATE)
    wave = np.fft.irfft(bins * np.maximum(hz, 30.0) ** (-rng.uniform(0, 2) / 2), n)
    time = np.arange(n) / RATE
    wave /= np.std(wave)
    if rng.random() < 0.3:
        base = rng.choice([50.0, 60.0, rng.uniform(80, 400)])
        for k in range(1, rng.integers(2, 8)):
            wave += rng.uniform(0, 0.7) / k * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6.28))
    if rng.random() < 0.3:
        wave *= 1 + 0.7 * np.sin(2 * np.pi * rng.uniform(0.5, 4) * time + rng.uniform(0, 6.28))
    return (wave / np.std(wave)).astype(np.float32)


class Noises:
    """A fixed stock of noise clips: own coloured noise, recorded silence, babble of training speech; RMS 1."""

    def __init__(self, rng, silences, speech, own=300, babble=120):
        stock = [coloured_noise(rng) for _ in range(own)]
        for wave in silences:
            stock += [place(wave, 0) / max(1e-5, float(np.std(wave)))] * 2
        for _ in range(babble):
            mix = np.zeros(CLIP, np.float32)
            for _ in range(rng.integers(3, 7)):
                mix += np.roll(place(speech[rng.integers(len(speech))], 0), rng.integers(CLIP)) * rng.uniform(0.3, 1)
            stock.append(mix / max(1e-5, float(np.std(mix))))
        self.stock = stock

    def draw(self, rng):
        """One clip, rolled and at times backwards."""
        wave = np.roll(self.stock[rng.integers(len(self.stock))], rng.integers(CLIP))
        return wave[::-1] if rng.random() < 0.5 else wave


def place(wave, at):
    """A clip of CLIP samples in which `wave` starts at `at` (may be negative)."""
    out = np.zeros(CLIP, np.float32)
    first = max(0, at)
    part = wave[max(0, -at) : max(0, -at) + CLIP - first]
    out[first : first + len(part)] = part
    return out


def resample(wave, rate):
    """Faster (rate > 1) or slower, pitch along with it."""
    n = max(16, int(len(wave) / rate))
    return np.interp(np.arange(n) * rate, np.arange(len(wave)), wave).astype(np.float32)


def colour(rng, wave):
    """Through a room and a microphone: a random impulse response and a smooth random equaliser."""
    spectrum = np.fft.rfft(wave, PADDED)
    knots = rng.normal(0, rng.uniform(0, 5), 8)
    octave = np.log2(np.maximum(np.fft.rfftfreq(PADDED, 1 / RATE), 60) / 60) / np.log2(8000 / 60) * 7
    spectrum *= 10 ** (np.interp(octave, np.arange(8), knots) / 20)
    if rng.random() < 0.5:
        t60 = rng.uniform(0.05, 0.6)
        n = int(min(0.5, t60) * RATE)
        tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / (t60 * RATE))
        tail *= rng.uniform(0.1, 1.0) / np.sqrt(np.sum(tail**2))
        tail[0] = 1.0
        spectrum *= np.fft.rfft(tail, PADDED)
    return np.fft.irfft(spectrum, PADDED)[: len(wave)].astype(np.float32)


def spoken(rng, wave, noises, synthetic):
    """One training clip of a word, before normalising."""
    wave = resample(wave, np.exp(rng.uniform(-0.16, 0.16)))
    if synthetic:
        spare = CLIP - len(wave)
        at = int(rng.integers(0, spare + 1)) if spare > 0 else -int(rng.integers(0, -spare + 1))
    else:
        at = int(rng.normal(0, 1200)) + (CLIP - len(wave)) // 2
    wave = place(wave, int(np.clip(at, -3200, CLIP - 1600)))
    if rng.random() < 0.8:
        wave = colour(rng, wave)
    level = float(np.sqrt(np.mean(wave**2)))
    if rng.random() < 0.85:
        snr = rng.uniform(2, 35) if not synthetic else rng.uniform(4, 40)
        wave = wave + noises.draw(rng) * (level * 10 ** (-snr / 20))
    if rng.random() < 0.1:
        wave = np.clip(wave, -0.6 * np.max(np.abs(wave)), 0.6 * np.max(np.abs(wave)))
    if rng.random() < 0.05:
        wave = wave.copy()
        wave[rng.integers(CLIP)] += rng.choice([-1, 1]) * np.max(np.abs(wave)) * rng.uniform(0.5, 1.5)
    return wave


def quiet(rng, noises):
    """One training clip of nothing said: noise, two noises, or almost nothing."""
    wave = noises.draw(rng).copy()
    draw = rng.random()
    if draw < 0.3:
        wave += noises.draw(rng) * rng.uniform(0.1, 1)
    elif draw < 0.4:
        wave *= 0
    if rng.random() < 0.5:
        wave = colour(rng, wave)
    if rng.random() < 0.15:
        for _ in range(rng.integers(1, 4)):
            at, n = rng.integers(CLIP - 400), rng.integers(10, 400)
            wave[at : at + n] += (rng.standard_normal(n) * np.hanning(n) * rng.uniform(2, 10)).astype(np.float32)
    return wave


def to_features(rng, waves):
    """Features [n, frames, bands] of clips, each with its own warp of the frequency axis."""
    clips = np.stack([frontend.normalise(w) for w in waves]).astype(np.float32)
    spectrum = frontend.spectra(clips)
    out = []
    for one in spectrum:
        warp = 1.0 if rng.random() < 0.3 else round(float(np.exp(rng.uniform(-0.13, 0.13))) * 50) / 50
        out.append(frontend.from_spectra(one, warp=warp))
    return np.stack(out).astype(np.float16)
