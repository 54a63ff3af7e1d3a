"""The audio front end of a bundle, in NumPy: what [input.audio] of bundle.toml says, and nothing more.

Invariant: features depend on the clip and on the [input.audio] table alone; the agent computes the same within 1e-3.
"""

import functools

import numpy as np

AUDIO = {
    "sample_rate_hz": 16000,
    "clip_samples": 16000,
    "fit": "loudest",
    "normalise": "peak",
    "frame_samples": 480,
    "step_samples": 320,
    "window": "hann",
    "fft": 512,
    "spectrum": "magnitude",
    "mel_bands": 40,
    "mel_low_hz": 60.0,
    "mel_high_hz": 7600.0,
    "mel_scale": "htk",
    "log_floor": 0.01,
    "features": "log-mel",
    "mean": 0.0,
    "std": 2.0,
}


def mel(hz):
    """HTK mel."""
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


@functools.lru_cache(maxsize=64)
def mel_matrix(rate, fft, bands, low, high, warp=1.0):
    """[fft/2+1, bands]: triangles linear in mel, not area normalised, bin 0 without weight.

    `warp` scales the frequency axis (a longer or shorter vocal tract), for training only.
    """
    edges = np.linspace(mel(low), mel(high), bands + 2)
    bins = np.minimum(np.arange(fft // 2 + 1) * rate / fft * warp, rate / 2)
    points = mel(bins)[:, None]
    rise = (points - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - points) / (edges[2:] - edges[1:-1])
    matrix = np.maximum(0.0, np.minimum(rise, fall))
    matrix[0] = 0.0
    return matrix.astype(np.float32)


def fit(wave, audio=AUDIO):
    """At most clip_samples of the clip, by the table's rule."""
    n = audio["clip_samples"]
    if len(wave) <= n:
        return wave
    if audio["fit"] == "start":
        return wave[:n]
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[n:] - energy[:-n]))
    return wave[start : start + n]


def normalise(wave, audio=AUDIO):
    """The clip at the level that the table asks for; a silent clip stays as it is."""
    rule = audio["normalise"]
    if rule == "none" or len(wave) == 0:
        return wave
    level = np.max(wave) if rule == "max" else np.max(np.abs(wave))
    return wave / level if level > 0 else wave


def spectra(clips, audio=AUDIO):
    """Magnitude or power spectra [n, frames, fft/2+1] of clips [n, clip_samples]."""
    size, step = audio["frame_samples"], audio["step_samples"]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(clips, size, axis=-1)[..., ::step, :]
    bins = np.fft.rfft(frames * window, audio["fft"], axis=-1)
    magnitude = np.abs(bins).astype(np.float32)
    return magnitude if audio["spectrum"] == "magnitude" else magnitude**2


def from_spectra(spectrum, audio=AUDIO, warp=1.0):
    """Features of spectra."""
    matrix = mel_matrix(
        audio["sample_rate_hz"], audio["fft"], audio["mel_bands"], audio["mel_low_hz"], audio["mel_high_hz"], warp
    )
    logs = np.log(spectrum @ matrix + np.float32(audio["log_floor"]))
    return (logs - np.float32(audio["mean"])) / np.float32(audio["std"])


def clip(wave, audio=AUDIO):
    """Fitted, normalised, padded samples."""
    wave = normalise(fit(np.asarray(wave, np.float32), audio), audio)
    out = np.zeros(audio["clip_samples"], np.float32)
    out[: len(wave)] = wave
    return out


def features(wave, audio=AUDIO):
    """Features [frames, bands] of one recording in [-1, 1]."""
    return from_spectra(spectra(clip(wave, audio)[None], audio), audio)[0].astype(np.float32)
