"""Triton's server for the CPU, which lies inside PyPI's nvidia-pytriton, for ONNX files.

    tritonserver.py PORT FOLDER NAME=FILE...

Writes its repository into FOLDER, each model a python model that runs its file on ONNX Runtime, and serves it.
Python's own shared library (libpython3.x) must be where the loader finds it.
"""

import importlib.util
import os
import pathlib
import shutil
import sys

MODEL = """
import sys
sys.path[:0] = {path!r}
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {{own.name(): own.as_numpy() for own in request.inputs()}}
        wanted = list(request.requested_output_names())
        outputs = zip(wanted, self.session.run(wanted, given))
        return triton.InferenceResponse([triton.Tensor(name, value) for name, value in outputs])
"""

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


def packages():
    """The folder that nvidia-pytriton was installed into."""
    return pathlib.Path(importlib.util.find_spec("pytriton").origin).parent.parent


def command(repository, http, grpc):
    """The server's command line and its environment; its backend for this Python is put in its place."""
    server = packages() / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        sys.exit(f"nvidia-pytriton has no backend for Python {version}")
    backend = server / "backends" / "python"
    own = backend / stub.name
    if not own.is_file() or own.read_bytes() != stub.read_bytes():
        half = backend / f"{stub.name}.{os.getpid()}"
        shutil.copy(stub, half)
        half.chmod(0o755)
        half.rename(own)
    program = server / "bin" / "tritonserver"
    program.chmod(0o755)
    arguments = [
        str(program), f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}", "--model-control-mode=explicit",
        "--load-model=*", "--allow-metrics=false", "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1", f"--http-port={http}", f"--grpc-port={grpc}",
    ]
    return arguments, {**os.environ, "LD_LIBRARY_PATH": str(packages() / "nvidia_pytriton.libs")}


def write(folder, name, file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    own = folder / name / "1"
    own.mkdir(parents=True, exist_ok=True)
    path = [entry for entry in sys.path[1:] if entry]
    own.joinpath("model.py").write_text(MODEL.format(path=path, file=file))
    lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 0"]
    for what, tensors in [("input", session.get_inputs()), ("output", session.get_outputs())]:
        for tensor in tensors:
            dims = [size if isinstance(size, int) else -1 for size in tensor.shape]
            lines.append(f'{what} [ {{ name: "{tensor.name}" data_type: {TYPES[tensor.type]} dims: {dims} }} ]')
    lines.append("instance_group [ { kind: KIND_CPU } ]")
    own.parent.joinpath("config.pbtxt").write_text("\n".join(lines) + "\n")


def main():
    port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    for model in sys.argv[3:]:
        write(folder, *model.split("=", 1))
    arguments, environment = command(folder, port, int(os.environ["HOLDFAST_GRPC_PORT"]))
    os.execve(arguments[0], arguments, environment)


if __name__ == "__main__":
    main()
