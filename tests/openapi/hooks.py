"""What schemathesis cannot know of the agent: what bodies look like that are no JSON, which requests
are held, and how much time a call has.

The agent has the shipped small bundles; their samples are the recordings and pictures. Named by
schemathesis.toml.
"""

import json
import os
import pathlib
import re
import struct
import uuid

import schemathesis
from hypothesis import strategies as st

BUNDLES = pathlib.Path(__file__).parent.parent.parent / "models" / "bundles"
# Requests that the agent holds.
HELD = os.environ.get("HOLDFAST_HELD", "").split()
# One of them as another queue would send it.
RECORD = json.loads(os.environ.get("HOLDFAST_RECORD", "{}"))
# What is held is not waited for any longer, in milliseconds.
LONGEST_WAIT = 50
# Every call has time enough, whatever else the machine does, in milliseconds.
ENOUGH = 60_000
LONGEST_DEADLINE = 600_000
# What is to be sent later is held for an hour, and wanted for a day, in milliseconds.
LATER, WANTED = 3_600_000, 86_400_000
LONGEST = 31_536_000_000
# The highest number of an event that the document knows; behind the first one there is another at once.
LONGEST_NUMBER = 9_007_199_254_740_991
# What the model of voice-commands takes, once.
FEATURES = {"name": "features", "datatype": "FP32", "shape": [1, 1, 49, 40], "data": [0.5] * 1960}
# How the files begin that each task takes.
TASKS = {"voice-commands": (b"RIFF",), "part-inspection": (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xdb", b"\x89PNG")}


def samples(bundle, ending):
    """The samples of a bundle, as bytes."""
    found = sorted((BUNDLES / bundle / "samples").glob(f"*.{ending}"))
    assert found, f"{bundle} has no sample .{ending}"
    return st.sampled_from([file.read_bytes() for file in found[:4]])


def array():
    """An array as `numpy.save` writes it: one number."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<f", 0.5)


schemathesis.openapi.media_type("audio/wav", samples("voice-commands", "wav"))
schemathesis.openapi.media_type("image/jpeg", samples("part-inspection", "jpg"))
schemathesis.openapi.media_type("image/png", samples("part-inspection", "png"))
schemathesis.openapi.media_type("image/webp", st.just(b"RIFF\x04\x00\x00\x00WEBP"))
schemathesis.openapi.media_type("text/csv", st.sampled_from([b"a,b\n1,2\n", b"1\n2\n"]))
schemathesis.openapi.media_type("application/x-npy", st.just(array()))
schemathesis.openapi.media_type("application/octet-stream", st.binary(min_size=1, max_size=64))


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Asks for a request that is there, in place of every second one that is not."""
    try:
        number = uuid.UUID(path_parameters["id"]).int
    except (AttributeError, KeyError, TypeError, ValueError):
        return path_parameters
    if HELD and number % 2:
        path_parameters["id"] = HELD[number // 2 % len(HELD)]
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """An inference of nothing becomes one of the model's input, a record of nothing a whole one."""
    path = context.operation.path
    if path.endswith("/infer") and isinstance(body, dict) and body.get("inputs") == []:
        return {**body, "inputs": [FEATURES]}
    if path == "/v1/queue/records" and isinstance(body, dict) and body.get("envelope") == body.get("body") == "":
        if re.fullmatch("[0-9a-f]{64}", str(body.get("sha256"))):
            return {**body, **{key: RECORD[key] for key in ("envelope", "body", "sha256")}}
    return body


def settle(terms, names, value, most):
    """Gives a span that is allowed this value; one that is not stays as it is."""
    for name in [name for name in terms if name.lower() in names]:
        try:
            given = int(terms[name])
        except (TypeError, ValueError):
            continue
        if 1 <= given <= most:
            terms[name] = type(terms[name])(value)


@schemathesis.hook
def before_call(context, case, kwargs):
    """A recording is for the task that takes one; no answer hangs on how quick the machine is, and none is
    waited for that does not come."""
    if case.path_parameters.get("task") in TASKS and isinstance(case.body, bytes):
        kind = case.body[:4]
        task = next((task for task in TASKS if kind in TASKS[task]), case.path_parameters["task"])
        case.path_parameters["task"] = task
    body = case.body.get("parameters") if isinstance(case.body, dict) else None
    for terms in (case.headers, case.query, body):
        if not isinstance(terms, dict) and not hasattr(terms, "keys"):
            continue
        settle(terms, {"wait_ms"}, LONGEST_WAIT, 60_000)
        settle(terms, {"starting_after"}, 0, LONGEST_NUMBER)
        settle(terms, {"holdfast-deadline-ms", "deadline_ms", "holdfast_deadline_ms"}, ENOUGH, LONGEST_DEADLINE)
        settle(terms, {"holdfast-not-before-ms", "not_before_ms"}, LATER, LONGEST)
        settle(terms, {"holdfast-ttl-ms", "ttl_ms"}, WANTED, LONGEST)
        settle(terms, {"timeout"}, ENOUGH * 1000, LONGEST_DEADLINE * 1000)


def close(schema):
    """No object of this schema has a field that is not in it."""
    if isinstance(schema, list):
        for inner in schema:
            close(inner)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            close(inner)


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """An answer may have more fields tomorrow; one of today that the document does not have is a fault."""
    close(raw_schema["components"]["schemas"])
    for item in raw_schema["paths"].values():
        for operation in item.values():
            close(operation.get("responses") if isinstance(operation, dict) else None)
