"""LitServe: an input's numbers in, the first output's numbers out, in JSON as it has it by default.

    lit.py FOLDER PORT NAME
"""

import pathlib
import sys

import litserve
import numpy as np

import models


class Api(litserve.LitAPI):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def setup(self, device):
        self.model = models.Model(self.file)

    def decode_request(self, request):
        return np.array(request["input"], self.model.dtype).reshape(self.model.shape)

    def predict(self, tensor):
        return self.model.session.run(None, {self.model.name: tensor})

    def encode_response(self, outputs):
        return {"output": outputs[0].ravel().tolist()}


if __name__ == "__main__":
    folder, port, name = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    server = litserve.LitServer(Api(folder / f"{name}.onnx"), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
