"""ONNX Runtime from Python, without a server in between.

    bare.py FOLDER

Says `ready`; then each line on its input, `NAME SECONDS`, has it run the model for so long on the
model's own input, and say the median and the 99th percentile of one run in microseconds and the
runs in a second.
"""

import pathlib
import sys
import time

import models


def main():
    folder = pathlib.Path(sys.argv[1])
    loaded = models.load(folder)
    inputs = {name: folder.joinpath(f"{name}.input").read_bytes() for name in loaded}
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        p50, p99, rate = measured(loaded[name], inputs[name], float(seconds))
        print(p50, p99, rate, flush=True)


def measured(model, data, seconds):
    import numpy as np

    given = {model.name: np.frombuffer(data, model.dtype).reshape(model.shape)}
    run, clock = model.session.run, time.perf_counter_ns
    for _ in range(5):
        run(None, given)
    times = []
    begun = before = clock()
    end = begun + int(seconds * 1e9)
    while before < end:
        run(None, given)
        now = clock()
        times.append(now - before)
        before = now
    rate = len(times) / ((before - begun) / 1e9)
    times.sort()
    at = lambda share: times[round((len(times) - 1) * share)] / 1000
    return at(0.5), at(0.99), rate


main()
