"""What tritonclient, unmodified, must get from a server of the Open Inference Protocol v2.

    check.py HTTP GRPC [--server holdfast|triton]

HTTP and GRPC are host:port. The server has the models of models.py, which give back what they get.
The same checks run against Triton itself, so that they are right; where Triton is known to answer a
wrong request worse, `other` says how, and nothing else is let pass.
"""

import argparse
import http.client
import json
import socket
import sys
import threading
import time
import traceback
import zlib

import numpy as np
import tritonclient.grpc as by_grpc
import tritonclient.http as by_http
from tritonclient.utils import InferenceServerException

import models

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Server:
    def __init__(self, http_address, grpc_address, is_triton):
        self.address = http_address
        self.grpc_address = grpc_address
        self.is_triton = is_triton
        self.http = by_http.InferenceServerClient(http_address, concurrency=8)
        self.grpc = by_grpc.InferenceServerClient(grpc_address)

    def other(self, holdfast, triton):
        """What is expected where Triton is known to answer otherwise."""
        return triton if self.is_triton else holdfast

    def both(self):
        return [(by_http, self.http), (by_grpc, self.grpc)]

    def raw(self, method, path, body=b"", headers=None):
        """One request as it is written here: status, headers and body of the answer."""
        host, port = self.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def infer(self, model, body, headers=None):
        return self.raw("POST", f"/v2/models/{model}/infer", body, headers)


def equal(got, want, what):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    if want.dtype.kind == "f":
        same = got.astype(want.dtype).tobytes() == want.tobytes() or (
            np.array_equal(got, want, equal_nan=True)
        )
    else:
        same = got.tolist() == want.tolist()
    assert same, f"{what}: {got!r}, not {want!r}"


def refused(call, statuses, words=()):
    """The call fails with one of the statuses, and says all of the words."""
    try:
        call()
    except InferenceServerException as error:
        status = str(error.status())
        assert any(s in status for s in statuses), f"{status} {error.message()}, not {statuses}"
        for word in words:
            assert word in error.message(), f"{word!r} is not in {error.message()!r}"
        return
    raise AssertionError(f"was not refused, should be with {statuses}")


def tensor(library, name, values, datatype, **how):
    own = library.InferInput(name, list(values.shape), datatype)
    own.set_data_from_numpy(values, **how)
    return own


@check
def health_and_metadata(server):
    for _, client in server.both():
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("identity-fp32") and client.is_model_ready("identity-fp32", "1" if server.is_triton else "1.0.0")
        assert not client.is_model_ready("nobody")
        assert not client.is_model_ready("identity-fp32", "77")
    about = server.http.get_server_metadata()
    assert about["name"] == server.other("holdfast", "triton"), about
    for extension in ["binary_tensor_data", "model_repository", "model_configuration", "parameters"]:
        assert extension in about["extensions"], about
        assert extension in server.grpc.get_server_metadata().extensions
    status, _, body = server.raw("GET", "/v2/health/live")
    assert (status, body) == (200, b""), (status, body)


@check
def models_are_described(server):
    version = server.other("1.0.0", "1")
    for datatype in models.DATATYPES:
        name = models.identity(datatype)
        want = [{"name": "x", "datatype": datatype, "shape": [-1, 4]}]
        about = server.http.get_model_metadata(name)
        assert about["inputs"] == want and about["versions"] == [version], about
        assert about["outputs"] == [{**want[0], "name": "y"}] and about["platform"], about
        assert server.http.get_model_metadata(name, version) == about
        config = server.http.get_model_config(name)
        kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
        got = {key: config["input"][0][key] for key in ["name", "data_type", "dims"]}
        assert got == {"name": "x", "data_type": kind, "dims": [-1, 4]}, config
        assert config["max_batch_size"] == 0 and config["name"] == name, config
        about = server.grpc.get_model_metadata(name)
        got = about.inputs[0]
        assert (got.name, got.datatype, list(got.shape)) == ("x", datatype, [-1, 4]), about
        assert list(about.versions) == [version], about
        config = server.grpc.get_model_config(name).config
        assert (config.name, list(config.input[0].dims)) == (name, [-1, 4]), config
        assert server.grpc.get_model_config(name, as_json=True)["config"]["input"][0]["data_type"] == kind
    for _, client in server.both():
        refused(lambda: client.get_model_metadata("nobody"), ["404", "NOT_FOUND"], ["nobody"])
        refused(lambda: client.get_model_metadata("identity-fp32", "77"), ["404", "NOT_FOUND"], ["77"])


@check
def every_type_in_every_form(server):
    for datatype in models.DATATYPES:
        name = models.identity(datatype)
        for values in models.values(datatype):
            what = f"{name} {values.shape}"
            for binary_in in [True, False]:
                for binary_out in [True, False]:
                    # Triton has no FP16 in JSON.
                    if server.is_triton and datatype == "FP16" and not (binary_in and binary_out):
                        continue
                    given = tensor(by_http, "x", values, datatype, binary_data=binary_in)
                    wanted = by_http.InferRequestedOutput("y", binary_data=binary_out)
                    result = server.http.infer(name, [given], outputs=[wanted])
                    told = result.get_output("y")
                    assert told["datatype"] == datatype, told
                    assert ("data" in told) == (not binary_out), told
                    equal(models.texts(result.as_numpy("y")), models.texts(values), f"{what} http {binary_in} {binary_out}")
            result = server.http.infer(name, [tensor(by_http, "x", values, datatype)])
            equal(models.texts(result.as_numpy("y")), models.texts(values), f"{what} http")
            result = server.grpc.infer(name, [tensor(by_grpc, "x", values, datatype)])
            equal(models.texts(result.as_numpy("y")), models.texts(values), f"{what} grpc")


@check
def typed_contents(server):
    """gRPC without raw contents, as KServe's own clients send it."""
    fields = {
        "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
        "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
        "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
        "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
    }
    stub = by_grpc.service_pb2_grpc.GRPCInferenceServiceStub(server.grpc._channel)
    for datatype, field in fields.items():
        for values in models.values(datatype):
            request = by_grpc.service_pb2.ModelInferRequest(model_name=models.identity(datatype), id="7")
            given = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
            flat = [v.encode() if isinstance(v, str) else v for v in values.flatten().tolist()]
            getattr(given.contents, field).extend(flat)
            answer = stub.ModelInfer(request)
            assert answer.id == "7" and answer.outputs[0].datatype == datatype, answer
            result = by_grpc.InferResult(answer)
            equal(models.texts(result.as_numpy("y")), models.texts(values), f"{datatype} typed")


@check
def what_is_no_number(server):
    values = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    for binary in [True, False]:
        given = tensor(by_http, "x", values, "FP32", binary_data=binary)
        wanted = by_http.InferRequestedOutput("y", binary_data=binary)
        result = server.http.infer("identity-fp32", [given], outputs=[wanted])
        equal(result.as_numpy("y"), values, f"binary {binary}")


@check
def nested_and_flat_lists(server):
    for data in ["[1,2,3,4,5,6,7,8]", "[[1,2,3,4],[5,6,7,8]]"]:
        body = '{"inputs":[{"name":"x","shape":[2,4],"datatype":"INT32","data":%s}]}' % data
        status, _, answer = server.infer("identity-int32", body)
        assert status == 200, answer
        assert json.loads(answer)["outputs"][0]["data"] == [1, 2, 3, 4, 5, 6, 7, 8], answer
    # The data before the shape, as JSON allows it.
    body = '{"inputs":[{"data":[1,2,3,4],"datatype":"INT32","shape":[1,4],"name":"x"}],"id":"q"}'
    status, _, answer = server.infer("identity-int32", body)
    assert status == 200 and json.loads(answer)["id"] == "q", answer


@check
def compressed_bodies(server):
    values = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    for inward in [None, "gzip", "deflate"]:
        for outward in [None, "gzip", "deflate"]:
            for binary in [True, False]:
                given = tensor(by_http, "x", values, "FP32", binary_data=binary)
                wanted = by_http.InferRequestedOutput("y", binary_data=binary)
                result = server.http.infer(
                    "identity-fp32", [given], outputs=[wanted],
                    request_compression_algorithm=inward, response_compression_algorithm=outward,
                )
                equal(result.as_numpy("y"), values, f"{inward} {outward} {binary}")
        given = tensor(by_grpc, "x", values, "FP32")
        result = server.grpc.infer("identity-fp32", [given], compression_algorithm=inward)
        equal(result.as_numpy("y"), values, f"grpc {inward}")


def pair(library, batch=2):
    a = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
    b = np.arange(2 * batch, dtype=np.int64).reshape(batch, 2)
    return a, b, [tensor(library, "a", a, "FP32"), tensor(library, "b", b, "INT64")]


@check
def several_inputs_and_outputs(server):
    for library, client in server.both():
        a, b, inputs = pair(library)
        for given in [inputs, inputs[::-1]]:
            result = client.infer("pair", given, request_id="my own")
            equal(result.as_numpy("a2"), a, "a2")
            equal(result.as_numpy("b2"), b, "b2")
        wanted = [library.InferRequestedOutput("b2")]
        result = client.infer("pair", inputs, outputs=wanted)
        equal(result.as_numpy("b2"), b, "b2 alone")
        assert result.as_numpy("a2") is None
        about = client.infer("pair", inputs, request_id="my own").get_response()
        own = about["id"] if isinstance(about, dict) else about.id
        assert own == "my own", about
    result = server.http.infer("pair", pair(by_http)[2], outputs=[
        by_http.InferRequestedOutput("b2", binary_data=False),
        by_http.InferRequestedOutput("a2", binary_data=True),
    ])
    a, b, _ = pair(by_http)
    equal(result.as_numpy("a2"), a, "mixed a2")
    equal(result.as_numpy("b2"), b, "mixed b2")


@check
def parameters_travel(server):
    for library, client in server.both():
        values = np.zeros((1, 4), np.float32)
        given = [tensor(library, "x", values, "FP32")]
        own = {"my_own": "anything", "number": 7}
        if not server.is_triton:
            own |= {"holdfast_class": "restricted", "holdfast_deadline_ms": 9000}
        result = client.infer("identity-fp32", given, priority=1, parameters=own)
        equal(result.as_numpy("y"), values, "with parameters")
        client.infer("identity-fp32", given, timeout=5_000_000)
        if not server.is_triton:
            for wrong in [{"holdfast_class": "secret"}, {"holdfast_clas": "public"}]:
                call = lambda: client.infer("identity-fp32", given, parameters=wrong)
                refused(call, ["400", "INVALID_ARGUMENT"], [next(iter(wrong))])


@check
def time_that_is_over_is_told(server):
    # Triton's python models know no deadline.
    if server.is_triton:
        return
    for library, client in server.both():
        given = [tensor(library, "x", np.zeros((1, 4), np.float32), "FP32")]
        refused(
            lambda: client.infer("identity-fp32", given, timeout=1),
            ["504", "DEADLINE_EXCEEDED"], ["identity-fp32"],
        )
    body = '{"parameters":{"timeout":1},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    status, headers, answer = server.infer("identity-fp32", body)
    assert status == 504 and int(headers["retry-after"]) >= 1, (status, headers, answer)


@check
def wrong_requests_are_told_what_is_wrong(server):
    good = np.zeros((1, 4), np.float32)
    bad = ["400", "INVALID_ARGUMENT"]
    for library, client in server.both():
        ask = lambda *inputs, **more: lambda: client.infer("identity-fp32", list(inputs), **more)
        own = lambda name, values, kind="FP32": tensor(library, name, values, kind)
        refused(ask(own("x", np.zeros((1, 5), np.float32))), bad, ["x", "[1,5]" if server.is_triton else "[1, 5]"])
        refused(ask(own("x", np.zeros(4, np.float32))), bad, ["x"])
        refused(ask(own("x", np.zeros((1, 4), np.int32), "INT32")), bad, ["x", "FP32"])
        refused(ask(own("z", good)), bad, ["z"] if not server.is_triton else [])
        refused(ask(own("x", good), own("z", good)), bad, ["z"] if not server.is_triton else [])
        unknown = library.InferRequestedOutput("nothing")
        refused(ask(own("x", good), outputs=[unknown]), bad, ["nothing"])
        if not server.is_triton:
            wanted = library.InferRequestedOutput("y")
            refused(ask(own("x", good), outputs=[wanted, wanted]), bad, ["y", "twice"])
        refused(lambda: client.infer("pair", pair(library)[2][:1]), bad, ["b"])
        known = ["404", "NOT_FOUND"]
        refused(
            lambda: client.infer("nobody", [own("x", good)]),
            server.other(known, ["400", "404", "NOT_FOUND"]), ["nobody"],
        )
        refused(
            lambda: client.infer("identity-fp32", [own("x", good)], model_version="77"),
            server.other(known, ["400", "404", "NOT_FOUND"]), ["77"],
        )
        # And what is right is answered as before.
        equal(client.infer("identity-fp32", [own("x", good)]).as_numpy("y"), good, "after it")


@check
def texts_that_are_none(server):
    values = np.array([[b"\xff\xfe", b"", b"a\0b", b"c"]], dtype=np.object_)
    for library, client in server.both():
        call = lambda: client.infer("identity-bytes", [tensor(library, "x", values, "BYTES")])
        if server.is_triton:
            call()
        else:
            refused(call, ["400", "INVALID_ARGUMENT"], ["x", "UTF-8"])


def one_input(**changed):
    own = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **changed}
    return {"inputs": [{key: value for key, value in own.items() if value is not None}]}


@check
def malformed_bodies_are_refused(server):
    binary = lambda size: one_input(data=None, parameters={"binary_data_size": size})
    text = json.dumps(one_input()).encode()
    behind = json.dumps(binary(16)).encode()
    length = lambda value: {"Inference-Header-Content-Length": str(value)}
    encoded = lambda kind: {"Content-Encoding": kind}
    bomb = zlib.compress(b"[" * (300 << 20), 9)
    cases = [
        # What, the body, its headers, our status, Triton's.
        ("no JSON", b"{nonsense", {}, 400, 500),
        ("nothing", b"", {}, 400, 200),
        ("a list", b"[]", {}, 400, 500),
        ("cut JSON", text[:-3], {}, 400, 500),
        ("no inputs", b"{}", {}, 400, 500),
        ("deeply nested", b"[" * 100_000, {}, 400, None),
        ("too few elements", one_input(data=[1, 2, 3]), {}, 400, 500),
        ("too many elements", one_input(data=[1] * 5), {}, 400, 500),
        ("a text among numbers", one_input(data=[1, 2, 3, "4"]), {}, 400, 500),
        ("no such type", one_input(datatype="FLOAT"), {}, 400, 400),
        ("no type", one_input(datatype=None), {}, 400, 500),
        ("no shape", one_input(shape=None), {}, 400, 500),
        ("no data", one_input(data=None), {}, 400, 400),
        ("an absurd shape", one_input(shape=[1 << 62, 1 << 62]), {}, 400, 400),
        ("a negative shape", one_input(shape=[-1, 4]), {}, 400, 500),
        ("too few bytes", json.dumps(binary(12)).encode() + b"\0" * 12, length(len(behind)), 400, 400),
        ("fewer bytes than said", behind + b"\0" * 8, length(len(behind)), 400, 400),
        ("more bytes than said", behind + b"\0" * 24, length(len(behind)), 400, 400),
        ("a length beyond the body", text, length(10**9), 400, 400),
        ("a length that is none", text, length("many"), 400, 400),
        ("a negative length", text, length(-1), 400, 400),
        ("gzip that is none", text, encoded("gzip"), 400, 200),
        ("deflate that is none", text, encoded("deflate"), 400, 200),
        ("an unknown encoding", text, encoded("br"), 415, 501),
        ("a bomb", bomb, encoded("deflate"), 413, None),
    ]
    wrong = []
    for what, body, headers, status, triton in cases:
        # What ends Triton's process, or fills its memory, is not sent to it.
        if server.is_triton and triton is None:
            continue
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        got, _, answer = server.infer("identity-fp32", body, headers)
        want = server.other(status, triton)
        told = None
        try:
            told = json.loads(answer).get("error")
        except ValueError:
            pass
        if got != want or (not server.is_triton and not told):
            wrong.append(f"{what}: {got} {answer[:200]!r}, not {want}")
        got, _, answer = server.infer("identity-fp32", text)
        if got != 200:
            wrong.append(f"after {what}: {got} {answer[:200]!r}")
    assert not wrong, "\n  ".join(wrong)


@check
def too_much_is_refused(server):
    """Also what is small before it is decompressed. Triton has no such limit."""
    if server.is_triton:
        return
    values = np.zeros((1 << 21, 4), np.float32)
    for how in [None, "gzip", "deflate"]:
        given = [tensor(by_http, "x", values, "FP32")]
        refused(
            lambda: server.http.infer("identity-fp32", given, request_compression_algorithm=how),
            ["413"], ["max_body_mib"],
        )
        given = [tensor(by_grpc, "x", values, "FP32")]
        refused(
            lambda: server.grpc.infer("identity-fp32", given, compression_algorithm=how),
            ["RESOURCE_EXHAUSTED"], ["bytes"],
        )
    small = values[:1]
    result = server.grpc.infer("identity-fp32", [tensor(by_grpc, "x", small, "FP32")])
    equal(result.as_numpy("y"), small, "after it")


@check
def the_rest_of_a_refused_body_is_no_request(server):
    host, port = server.address.split(":")
    hidden = b"GET /v2/hidden HTTP/1.1\r\nHost: h\r\n\r\n" * 50_000
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    for path, headers in [
        ("/v2/models/nobody/infer", b""),
        ("/v2/models/identity-fp32/infer", b"Content-Encoding: br\r\n"),
        ("/v2/models/identity-fp32/infer", b"Inference-Header-Content-Length: many\r\n"),
        ("/v2/nowhere", b""),
    ]:
        head = b"POST %s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), headers, len(hidden))
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            got = b""
            try:
                connection.sendall(head + hidden + live)
                while chunk := connection.recv(1 << 16):
                    got += chunk
            except (ConnectionError, TimeoutError):
                pass
        answers = [line for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        # One refusal, and either the answer to what follows or the connection's end.
        statuses = [int(line.split()[1]) for line in answers]
        fine = len(statuses) <= 2 and statuses[:1] and statuses[0] >= 400 and statuses[1:] in ([], [200])
        assert fine or server.is_triton, f"{path} {headers}: {statuses[:9]} {got[:300]!r}"


@check
def the_repository_can_be_changed(server):
    name = "identity-uint16"
    version = server.other("1.0.0", "1")
    values = np.zeros((1, 4), np.uint16)
    for library, client in server.both():
        index = client.get_model_repository_index()
        entries = index if isinstance(index, list) else [
            {"name": m.name, "version": m.version, "state": m.state} for m in index.models
        ]
        there = {entry["name"]: entry for entry in entries}
        for own in models.names():
            assert there[own]["state"] == "READY" and there[own]["version"] == version, entries
        given = [tensor(library, "x", values, "UINT16")]
        client.unload_model(name)
        until(lambda: not client.is_model_ready(name))
        refused(
            lambda: client.infer(name, given),
            server.other(["503", "UNAVAILABLE"], ["400", "404", "UNAVAILABLE", "NOT_FOUND"]), [name],
        )
        client.load_model(name)
        until(lambda: client.is_model_ready(name))
        equal(client.infer(name, given).as_numpy("y"), values, "loaded again")
        refused(
            lambda: client.load_model("nobody"),
            server.other(["404", "NOT_FOUND"], ["500", "INTERNAL"]), ["nobody"],
        )
        if not server.is_triton:
            refused(lambda: client.unload_model("nobody"), ["404", "NOT_FOUND"], ["nobody"])
            config = json.dumps({"name": name})
            refused(lambda: client.load_model(name, config=config), ["400", "INVALID_ARGUMENT"], ["config"])


def until(holds, within=30):
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.02)


@check
def many_at_once(server):
    faults = []

    def ask(library, client, seed):
        try:
            random = np.random.default_rng(seed)
            for _ in range(40):
                values = random.standard_normal((int(random.integers(1, 9)), 4)).astype(np.float32)
                result = client.infer("identity-fp32", [tensor(library, "x", values, "FP32")])
                equal(result.as_numpy("y"), values, f"caller {seed}")
        except Exception:
            faults.append(traceback.format_exc())

    clients = [(by_http, by_http.InferenceServerClient(server.address)) for _ in range(4)]
    clients += [(by_grpc, by_grpc.InferenceServerClient(server.grpc_address)) for _ in range(4)]
    callers = [threading.Thread(target=ask, args=(*own, seed)) for seed, own in enumerate(clients)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not faults, faults[0]


@check
def callers_that_go_away_harm_nobody(server):
    values = np.zeros((1, 4), np.float32)
    given = [tensor(by_grpc, "x", values, "FP32")]
    for _ in range(50):
        try:
            server.grpc.infer("identity-fp32", given, client_timeout=5e-4)
        except InferenceServerException as error:
            assert "DEADLINE_EXCEEDED" in error.status(), error
    for _ in range(50):
        call = server.grpc.async_infer("identity-fp32", given, callback=lambda result, error: None)
        call.cancel()
    host, port = server.address.split(":")
    for part in [b"", b"POST /v2/models/identity-fp32/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n{"]:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(part)
    equal(server.grpc.infer("identity-fp32", given).as_numpy("y"), values, "after it")
    equal(server.http.infer("identity-fp32", [tensor(by_http, "x", values, "FP32")]).as_numpy("y"), values, "after it")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("http")
    arguments.add_argument("grpc")
    arguments.add_argument("--server", choices=["holdfast", "triton"], default="holdfast")
    given = arguments.parse_args()
    server = Server(given.http, given.grpc, given.server == "triton")
    failed = 0
    for own in CHECKS:
        begun = time.monotonic()
        try:
            own(server)
            print(f"passed: {own.__name__} ({time.monotonic() - begun:.2f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED: {own.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed on {given.server}")
    sys.exit(1 if failed else 0)


main()
