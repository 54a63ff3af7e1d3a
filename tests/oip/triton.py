"""Runs check.py against Triton itself, whose server for the CPU lies inside PyPI's nvidia-pytriton.

    triton.py PACKAGES

PACKAGES is a folder with nvidia-pytriton, numpy and tritonclient. Python's own shared library
(libpython3.x) must be where the loader finds it.
"""

import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import models

sys.path.append(str(pathlib.Path(__file__).parents[1] / "servers"))
import tritonserver

READY_WITHIN = 120


def free_port():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def main():
    packages = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        models.repository(folder, packages)
        http, grpc = free_port(), free_port()
        command, libraries = tritonserver.command(folder, http, grpc)
        log = pathlib.Path(folder, "triton.log")
        with log.open("wb") as out:
            triton = subprocess.Popen(command, env=libraries, stdout=out, stderr=out)
        try:
            wait(triton, http, log)
            check = pathlib.Path(__file__).with_name("check.py")
            places = [f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"]
            status = subprocess.run([sys.executable, str(check), *places, "--server", "triton"])
        finally:
            triton.kill()
            triton.wait()
        sys.exit(status.returncode)


def wait(triton, port, log):
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and triton.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready") as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    sys.exit("Triton is not ready:\n" + log.read_text(errors="replace")[-3000:])


main()
