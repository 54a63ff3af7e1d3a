"""What a bundle is measured at, as numbers, as CARD.md and as confusion.png.

Invariant: every number of the card comes from the committed files through ONNX Runtime and the reference front end.
"""

import tomllib

import bundle_writer as writer
import numpy as np

from . import packing, speech

SETS = {
    "recordings": "{n} recordings of other speakers (Speech Commands test set, 8 a class, the ten words, unknown, silence)",
    "speakers": "{n} clips of held-out speakers of the training folder",
    "noisy": "{n} of the same with noise 3 to 25 dB below",
    "voices": "{n} clips of held-out espeak-ng voices (all labels but silence)",
}


def measure(folder, sets):
    """{set: {variant: what `bundle_writer.measure` gives, and n, right, confusion}} of a bundle's folder."""
    manifest = tomllib.loads((folder / "bundle.toml").read_text())
    output = manifest["output"][0]
    results = {}
    for name, (features, labels) in sets.items():
        results[name] = {}
        for variant in manifest["variant"]:
            scores = packing.logits(folder / variant["file"], features)
            results[name][variant["name"]] = {
                **writer.measure(scores, labels, output["temperature"], output["threshold"]),
                "n": len(labels),
                "right": int(np.sum(scores.argmax(-1) == labels)),
                "confusion": writer.confusion(scores, labels, len(speech.LABELS)),
            }
    return results


def table(results):
    """The results as a Markdown table."""
    lines = [
        "| measured on | variant | right | accuracy | answers at or over the threshold | of those right | calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, variants in results.items():
        for variant, r in variants.items():
            lines.append(
                f"| {SETS[name].format(n=r['n'])} | {variant} | {r['right']}/{r['n']} | {r['accuracy']:.1%} "
                f"| {r['accepted']:.1%} | {r['accepted_accuracy']:.1%} | {r['calibration_error']:.3f} |"
            )
    return "\n".join(lines)


def picture(results, path, title):
    """confusion.png: the int8 variant on the recordings and on the held-out voices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [n for n in ("recordings", "voices") if n in results]
    names = {"recordings": "recordings of people", "voices": "held-out espeak-ng voices"}
    figure, axes = pyplot.subplots(1, len(shown), figsize=(6.2 * len(shown), 6), squeeze=False)
    for axis, name in zip(axes[0], shown):
        confusion = results[name]["int8"]["confusion"]
        share = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(confusion)):
            axis.text(j, i, confusion[i, j], ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.5 else "black")
        axis.set_xticks(range(len(speech.LABELS)), speech.LABELS, rotation=90, fontsize=8)
        axis.set_yticks(range(len(speech.LABELS)), speech.LABELS, fontsize=8)
        axis.set_xlabel("answered")
        axis.set_ylabel("said")
        axis.set_title(f"{names[name]}: {results[name]['int8']['accuracy']:.1%}", fontsize=10)
    figure.suptitle(f"{title}, int8", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def facts(network, parameters, rows, minutes):
    """What the card says beside the numbers; `rows` are the recordings of the training folder."""
    kept, apart = speech.split(rows)
    train_voices, held_voices = speech.variants()

    def people(group):
        return len({r[2] for r in group if r[1] != speech.SILENCE})

    return {
        "network": network,
        "parameters": parameters,
        "minutes": minutes,
        "train_clips": len(kept),
        "train_speakers": people(kept),
        "held_clips": len(apart),
        "held_speakers": people(apart),
        "voices": len(train_voices),
        "held_voices": len(held_voices),
    }


def write(folder, results, facts):
    """CARD.md and confusion.png."""
    manifest = tomllib.loads((folder / "bundle.toml").read_text())
    output = manifest["output"][0]
    sizes = {v["name"]: (folder / v["file"]).stat().st_size for v in manifest["variant"]}
    picture(results, folder / "confusion.png", manifest["name"])
    text = f"""# {manifest['name']} {manifest['version']}

{manifest['description']}

Labels: {', '.join(output['labels'])}.

{facts['network']}

| file | parameters | bytes |
|---|---|---|
| model.int8.onnx (int8 QDQ, per channel; the last layer fp32) | {facts['parameters']} | {sizes['int8']} |
| model.fp32.onnx | {facts['parameters']} | {sizes['fp32']} |

## Accuracy

{table(results)}

Confidence is the largest of softmax(logits / {output['temperature']}); under {output['threshold']} the answer is not good enough and goes up where
its data class lets it. Temperature and threshold were fitted on the held-out speakers, as recorded and in noise, so that about
{packing.WANTED_RIGHT:.0%} of the answers at or over the threshold are right there. The calibration error is the expected one over 15 bins.
On the recordings an answer of start, reset, help or emergency counts as wrong. They are few: one recording is one per cent. Large
networks, and sets of them, that did alike on the held-out clips got 87 to 90 of them right while this was made, so take the last
clip or two for chance. Larger sets got up to 9 more of the 1,365 held-out clips right at several times the cost.

![confusion](confusion.png)

Reproduce, from the committed files alone (the rows of the espeak-ng voices also need espeak-ng):

    python models/train/voice_commands.py --evaluate --test DIR/kws_wav --data DIR/kws_train

## Data

- Speech Commands v0.02, Pete Warden, Google, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/): an excerpt of
  {facts['train_clips']} clips by {facts['train_speakers']} speakers for training, {facts['held_clips']} clips by {facts['held_speakers']} other speakers held out for calibration and
  for choosing between networks. Changed: speed, pitch, room, equaliser, noise, masks. The test recordings are of further
  speakers; nothing was trained or calibrated on them. Which two networks make the large bundle was settled before they were
  measured, that each looks at the features once was settled by the held-out clips; but the figures of such candidates on
  the recordings were known by then, so the large bundle's may flatter it by a clip.
- Speech synthesised by espeak-ng, {facts['voices']} voice variants in 8 English accents with random speed, pitch and intonation;
  {facts['held_voices']} variants were kept from training, and the samples in `samples/` were spoken by those.
- Noise made by the script.

## Limits

- start, reset, help and emergency were learnt from synthetic speech alone and were never measured on people; try them with
  your own voices before anything depends on them. This is no safety function: an emergency stop needs its own wire.
- One word at a time, in English, within one second. Longer recordings are cut to their loudest second.
- Few speakers by today's measure. Children, strong accents and distant microphones will do worse than the table.
- Other words are mostly answered `unknown`, but a word that sounds like a command can be taken for it.
- The samples were picked: one clear clip a label, and noisy ones that the small model is unsure of and the large one is not.
  They show the way a request takes; they measure nothing.

Trained by `models/train/voice_commands.py`, seed {manifest['provenance']['seed']}, {manifest['provenance']['date']}; CPU only, {facts['minutes']}.
Licence of the model: {manifest['licence']}; the data's attribution above goes with it.
"""
    (folder / "CARD.md").write_text(text)
