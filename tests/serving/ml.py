"""MLServer: a runtime of its own for ONNX files, which speaks the Open Inference Protocol in JSON.

    ml.py FOLDER PORT NAME...

Writes MLServer's settings for these models of the folder into the current one, and serves them.
"""

import json
import os
import pathlib
import sys

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self):
        import models

        self.model = models.Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (given,) = payload.inputs
        tensor = NumpyCodec.decode_input(given).astype(self.model.dtype, copy=False)
        outputs = self.model.session.run(None, {self.model.name: tensor})
        named = zip(self.model.session.get_outputs(), outputs)
        encoded = [NumpyCodec.encode_output(out.name, value) for out, value in named]
        return InferenceResponse(model_name=self.name, outputs=encoded)


def main():
    folder, port, names = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    here = pathlib.Path.cwd()
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2,
        # A process of its own for the models makes every request slower.
        "parallel_workers": 0, "debug": False,
    }
    here.joinpath("settings.json").write_text(json.dumps(settings))
    for name in names:
        own = here / name
        own.mkdir(exist_ok=True)
        about = {
            "name": name, "implementation": "ml.Onnx",
            "parameters": {"uri": str(folder / f"{name}.onnx")},
        }
        own.joinpath("model-settings.json").write_text(json.dumps(about))
    program = pathlib.Path(sys.executable).with_name("mlserver")
    os.execv(program, [str(program), "start", str(here)])


if __name__ == "__main__":
    main()
