"""Speech from espeak-ng and the recordings of the training folder.

Invariant: a held-out speaker or espeak voice never appears among the training clips.
"""

import csv
import hashlib
import io
import pathlib
import subprocess
import zlib

import numpy as np
import soundfile
from scipy.signal import resample_poly

RATE = 16000
REAL_WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
SITE_WORDS = ["start", "reset", "help", "emergency"]
LABELS = REAL_WORDS + SITE_WORDS + ["unknown", "silence"]
UNKNOWN, SILENCE = LABELS.index("unknown"), LABELS.index("silence")

# words that are no commands: the other words of Speech Commands, words that sound like a command, everyday words
OTHER_WORDS = """
backward bed bird cat dog eight five follow forward four happy house learn marvin nine one seven sheila six three tree
two visual wow zero backward bed bird cat dog eight five follow forward four happy house learn marvin nine one seven
sheila six three tree two visual wow zero
less chess guess mess yeah yet yesterday desk year snow know-how note not now nose nope toe low row bow mow cup us uncle
upper pup what but cut bus town dawn done brown noun gown doubt dune lift let laugh loft leaf felt life left-over
white ride wry light rice fright night bright rye ran own gone dawn lawn an in and awning honest often of-course cough
office loft orphan soft offer shop top step stock stamp spot chop drop store staff gold goat grow ghost so glow cold
star dark art stir sport heart smart staff state starve rest receipt recent rental result beset preset resist
health held helm shelf hell felt whelp yell emerge energy merchant urgent agency emerging embassy
hello please thank water table window machine hammer green yellow open close door pump valve motor pressure seventeen
hundred thousand monday april seven-thirty music weather tomorrow coffee the there people camera picture robot friend
orange paper money garden river mountain kitchen question number answer winter summer sorry maybe
""".split()

# variants of which training hears nothing; those that hardly speak are in neither set
HELD_OUT_VARIANTS = """
Andy f3 m4 linda Lee Mike quincy steph2 klatt3 iven2 robosoft4 belinda Denis pablo travis
""".split()
LEFT_OUT_VARIANTS = "fast Demonic UniRobot anikaRobot whisper whisperf Storm Tweaky".split()
ACCENTS = ["en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"]


def variants():
    """Variant names of the installed espeak-ng: (training, held out)."""
    text = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    names = sorted({part[3:] for line in text.splitlines() for part in line.split() if part.startswith("!v/")})
    train = [n for n in names if n not in HELD_OUT_VARIANTS and n not in LEFT_OUT_VARIANTS]
    return train, [n for n in HELD_OUT_VARIANTS if n in names]


def trim(wave, threshold=0.01):
    """The clip without its leading and trailing silence."""
    loud = np.flatnonzero(np.abs(wave) > threshold * max(1e-9, np.max(np.abs(wave))))
    return wave[loud[0] : loud[-1] + 1] if len(loud) else wave[:1]


def say(word, accent, variant, speed, pitch, mark=""):
    """One spoken word at 16 kHz, trimmed, peak 1."""
    command = ["espeak-ng", "-v", f"{accent}+{variant}", "-s", str(speed), "-p", str(pitch), "--stdout"]
    raw = subprocess.run([*command, word.replace("-", " ") + mark], capture_output=True, check=True).stdout
    wave, rate = soundfile.read(io.BytesIO(_sized(raw)), dtype="float32")
    if rate != RATE:
        common = np.gcd(rate, RATE)
        wave = resample_poly(wave, RATE // common, rate // common).astype(np.float32)
    wave = trim(wave)
    return wave / max(1e-6, float(np.max(np.abs(wave))))


def _sized(raw):
    """A streamed WAV with its real sizes in the headers."""
    out = bytearray(raw)
    out[4:8] = (len(raw) - 8).to_bytes(4, "little")
    at = raw.find(b"data")
    out[at + 4 : at + 8] = (len(raw) - at - 8).to_bytes(4, "little")
    return bytes(out)


def synthesise(variant_names, per_word, per_other, seed):
    """[(wave, label index, word)]: every command `per_word` times, every other word `per_other` times."""
    rng = np.random.default_rng(seed)
    jobs = [(w, i) for i, w in enumerate(REAL_WORDS + SITE_WORDS) for _ in range(per_word)]
    jobs += [(w, UNKNOWN) for w in OTHER_WORDS for _ in range(per_other)]
    clips = []
    for word, label in jobs:
        voice = (str(rng.choice(ACCENTS)), str(rng.choice(variant_names)))
        slowest = 140 if word == "emergency" else 95
        speed, pitch = int(rng.integers(slowest, 230)), int(rng.integers(15, 85))
        wave = say(word, *voice, speed, pitch, str(rng.choice(["", ".", "!", "?"])))
        if len(wave) > 800:
            clips.append((wave[:RATE], label, word))
    return clips


def speaker(name):
    """Speaker of a Speech Commands file; a silence clip stands for itself."""
    stem = pathlib.Path(name).stem.split("__", 1)[1]
    return stem.split("_nohash_")[0].split("_")[-1]


def recordings(folder):
    """[(wave, label index, speaker, file)] of a folder with labels.csv."""
    folder = pathlib.Path(folder)
    with open(folder / "labels.csv", newline="") as handle:
        rows = [(row["file"], row["class_name"]) for row in csv.DictReader(handle)]
    out = []
    for name, label in sorted(rows):
        wave, rate = soundfile.read(folder / name, dtype="float32")
        if rate != RATE or wave.ndim != 1:
            raise ValueError(f"{name}: want 16 kHz mono, got {rate} Hz, {wave.ndim} axes")
        out.append((wave, LABELS.index(label), speaker(name), name))
    return out


def split(rows, want=190):
    """(training, held out): whole speakers, in the order of their hash, until `want` spoken clips are held out."""
    spoken = {}
    for row in rows:
        if row[1] != SILENCE:
            spoken[row[2]] = spoken.get(row[2], 0) + 1
    held, total = set(), 0
    for name in sorted(spoken, key=lambda s: hashlib.sha256(s.encode()).hexdigest()):
        if spoken[name] <= 20 and total < want:
            held.add(name)
            total += spoken[name]
    def is_held(row):
        if row[1] == SILENCE:
            return zlib.crc32(row[3].encode()) % 8 == 0
        return row[2] in held
    return [r for r in rows if not is_held(r)], [r for r in rows if is_held(r)]
