"""Runs `infer` of two agents over every sample of every bundle and compares what they answer.

Usage: compare.py BUNDLES AGENT OTHER_AGENT

An agent is a command, split as a shell would: the other one usually runs under an emulator. Every
bundle and variant is tried alone, so that each answers its task itself. The top label must be the same, and no
confidence may differ by more than 0.001.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib

MOST = 1e-3


def infer(agent, task, files, bundles, variant):
    """The answers of one agent, as `infer --json` prints them."""
    chosen = ["--json", "--bundles", str(bundles), "--variant", variant]
    command = [*shlex.split(agent), "infer", task, *map(str, files), *chosen]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if run.returncode != 0:
        sys.exit(f"compare: {shlex.join(command[:4])} ... ended with {run.returncode}: {run.stderr.strip()}")
    answers = json.loads(run.stdout)
    if len(answers) != len(files):
        sys.exit(f"compare: {len(files)} files, {len(answers)} answers from {agent}")
    return answers


def classes(answer):
    """Confidence by label."""
    return {c["label"]: c["confidence"] for c in answer["classes"]}


def compare(name, files, left, right):
    """The largest difference, and a sentence for every answer that is not the same."""
    worst, faults = 0.0, []
    for file, one, other in zip(files, map(classes, left), map(classes, right)):
        if one.keys() != other.keys():
            faults.append(f"{name} {file.name}: labels {sorted(one)} and {sorted(other)}")
            continue
        difference = max(abs(one[label] - other[label]) for label in one)
        worst = max(worst, difference)
        tops = max(one, key=one.get), max(other, key=other.get)
        if tops[0] != tops[1] or difference > MOST:
            faults.append(
                f"{name} {file.name}: {tops[0]} {one[tops[0]]:.4f} and {tops[1]} {other[tops[1]]:.4f}, "
                f"confidences differ by up to {difference:.5f}"
            )
    return worst, faults


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    root, native, other = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    manifests = sorted(root.glob("*/bundle.toml"))
    if not manifests:
        sys.exit(f"compare: no bundles in {root}")
    faults, compared = [], 0
    for manifest in manifests:
        bundle = tomllib.loads(manifest.read_text())
        files = [manifest.parent / sample["file"] for sample in bundle.get("sample", [])]
        if not files:
            sys.exit(f"compare: bundle {bundle['name']} has no samples")
        for variant in [variant["name"] for variant in bundle["variant"]]:
            with tempfile.TemporaryDirectory() as alone:
                shutil.copytree(manifest.parent, pathlib.Path(alone) / bundle["name"])
                agents = (native, other)
                answers = [infer(agent, bundle["task"], files, alone, variant) for agent in agents]
            name = f"{bundle['name']} {variant}"
            worst, wrong = compare(name, files, *answers)
            print(f"-- {name}: {len(files)} inputs, confidences differ by at most {worst:.6f}", flush=True)
            faults += wrong
            compared += len(files)
    for fault in faults:
        print(f"   {fault}")
    if faults:
        sys.exit(f"compare: {len(faults)} of {compared} answers are not the same")
    print(f"cross-check passed: {compared} answers are the same")


if __name__ == "__main__":
    main()
