"""The models that the peers serve: a folder of NAME.onnx, each with its input's bytes in NAME.input."""

import pathlib

import numpy as np
import onnxruntime

DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class Model:
    """One model on ONNX Runtime, on one thread."""

    def __init__(self, file):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        (given,) = self.session.get_inputs()
        self.name = given.name
        self.dtype = DTYPES[given.type]
        # A free batch is one here.
        self.shape = [dim if isinstance(dim, int) else 1 for dim in given.shape]

    def run(self, data):
        """The outputs for an input's bytes."""
        tensor = np.frombuffer(data, self.dtype).reshape(self.shape)
        return self.session.run(None, {self.name: tensor})


def load(folder):
    """All models of the folder, by name."""
    return {file.stem: Model(file) for file in sorted(pathlib.Path(folder).glob("*.onnx"))}
