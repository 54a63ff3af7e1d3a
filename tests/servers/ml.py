"""MLServer, for ONNX files: a runtime of its own runs them on ONNX Runtime.

    ml.py PORT FOLDER NAME=FILE...

Writes its settings into FOLDER, and serves the models.
"""

import json
import os
import pathlib
import sys

import onnxruntime
from mlserver import MLModel, cli
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

TYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


class Onnx(MLModel):
    async def load(self):
        self.session = session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {own.name: NumpyCodec.decode_input(own) for own in payload.inputs}
        names = [own.name for own in self.session.get_outputs()]
        outputs = zip(names, self.session.run(names, given))
        encoded = [NumpyCodec.encode_output(name, value) for name, value in outputs]
        return InferenceResponse(model_name=self.name, outputs=encoded)


def main():
    port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": int(os.environ["HOLDFAST_GRPC_PORT"]),
        "metrics_endpoint": None, "parallel_workers": 0, "debug": False,
    }
    folder.joinpath("settings.json").write_text(json.dumps(settings))
    for model in sys.argv[3:]:
        name, file = model.split("=", 1)
        own = folder / name
        own.mkdir(exist_ok=True)
        graph = session(file)
        told = lambda tensors: [
            {"name": t.name, "datatype": TYPES[t.type], "shape": [s if isinstance(s, int) else -1 for s in t.shape]}
            for t in tensors
        ]
        about = {
            "name": name, "implementation": "ml.Onnx", "parameters": {"uri": file},
            "inputs": told(graph.get_inputs()), "outputs": told(graph.get_outputs()),
        }
        own.joinpath("model-settings.json").write_text(json.dumps(about))
    sys.argv = ["mlserver", "start", str(folder)]
    cli.main()


if __name__ == "__main__":
    main()
