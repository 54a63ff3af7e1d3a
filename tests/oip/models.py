"""The models that check.py asks, each of which gives back what it gets, and what they are asked.

For Triton, this module writes them as python models (`repository`); for Holdfast the test that runs
check.py writes the same ones as bundles.
"""

import pathlib

import numpy as np

DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}


def identity(datatype):
    return f"identity-{datatype.lower()}"


def names():
    return [identity(datatype) for datatype in DATATYPES] + ["pair"]


def values(datatype):
    """Batches of one, and of three, with the ends of the type in them."""
    kind = DATATYPES[datatype]
    if datatype == "BYTES":
        row = ["", "text", "é \u2028 \U0001f600", "a\n\"b\" \\ \t/"]
        batches = [[row], [row, ["1", "2", "3", "4"], ["x" * 5000, "y", "z", " "]]]
        return [np.array([[t.encode() for t in r] for r in batch], dtype=kind) for batch in batches]
    if datatype == "BOOL":
        row = [True, False, False, True]
    elif datatype.startswith("FP"):
        row = [np.finfo(kind).max, np.finfo(kind).tiny, -1 / 3, -0.0]
    else:
        row = [np.iinfo(kind).min, np.iinfo(kind).max, 0, 7]
    own = np.array(row, dtype=kind)
    return [np.stack([own]), np.stack([own, own[::-1], np.roll(own, 1)])]


def texts(own):
    """Texts as text: JSON gives them so, and the binary form as bytes."""
    if own is None or own.dtype != np.object_:
        return own
    flat = [t.decode() if isinstance(t, bytes) else str(t) for t in own.flatten()]
    return np.array(flat, dtype=np.object_).reshape(own.shape)


MODEL = """
import sys
sys.path.insert(0, {packages!r})
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pairs = {pairs!r}
        given = lambda name: triton.get_input_tensor_by_name(request, name).as_numpy()
        wanted = request.requested_output_names()
        return triton.InferenceResponse(
            [triton.Tensor(to, given(own)) for own, to in pairs if to in wanted]
        )
"""


def repository(folder, packages):
    """Writes the models as Triton reads them; `packages` is where their Python finds numpy."""
    identities = {identity(datatype): [("x", "y", datatype, 4)] for datatype in DATATYPES}
    for name, tensors in {**identities, "pair": [("a", "a2", "FP32", 3), ("b", "b2", "INT64", 2)]}.items():
        own = pathlib.Path(folder, name, "1")
        own.mkdir(parents=True)
        pairs = [(given, to) for given, to, _, _ in tensors]
        own.joinpath("model.py").write_text(MODEL.format(packages=str(packages), pairs=pairs))
        lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 0"]
        for given, to, datatype, size in tensors:
            kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
            shape = f"data_type: {kind} dims: [ -1, {size} ]"
            lines.append(f'input [ {{ name: "{given}" {shape} }} ]')
            lines.append(f'output [ {{ name: "{to}" {shape} }} ]')
        lines.append("instance_group [ { kind: KIND_CPU } ]")
        own.parent.joinpath("config.pbtxt").write_text("\n".join(lines) + "\n")
