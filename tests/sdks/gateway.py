"""The agent's API, asked with OpenAI's own client for Python as it is.

    gateway.py URL PART...

Behind the agent are stand-ins of providers: `near` (OpenAI, in the site), `cloud` (Anthropic, private),
`far` (Gemini, public), `down` (nobody is there), `silent` (says nothing), `cut` (breaks off after a word),
and the routes `any` (down, near) and `none` (down). The part `tokens` asks an agent that wants them, with
`near` and `other` behind it, and finds its own in `KEYS`, a JSON object.
"""

import asyncio
import base64
import json
import os
import struct
import sys
import time

import openai
from openai import AsyncOpenAI, OpenAI

URL = sys.argv[1] + "/v1"
NOBODY = "http://127.0.0.1:9/v1"  # the discard service
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63680000008200817dd0fb1a0000000049454e44ae426082"
)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["good", "cracked"]}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"name": "weather", "description": "of a city", "parameters": CITY}
MODEL = "model-1:0"

client = OpenAI(api_key="unused", base_url=URL, max_retries=0)
passed = 0


def check(what, got, want):
    global passed
    assert got == want, f"{what}: {got!r} is not {want!r}"
    passed += 1


def thrown(what, kind, call):
    """What was raised, which is of this kind and of no other."""
    try:
        call()
    except openai.APIError as error:
        check(what, type(error), kind)
        return error
    raise AssertionError(f"{what}: nothing was raised")


def raises(what, kind, codes, call):
    """The client's own exception, its code, and what it says."""
    error = thrown(what, kind, call)
    check(what, error.code in codes.split(), True)
    assert error.request_id, f"{what}: no request id"
    return error


def ask(content="hello", model="near", **more):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def words(stream):
    """The words of a stream, and why it ended."""
    text, ends, usage = [], [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text.append(choice.delta.content or "")
            ends += [choice.finish_reason] if choice.finish_reason else []
    return "".join(text), ends, usage


def completions():
    answer = ask("hello", temperature=0.5, max_completion_tokens=50, stop=["x"], seed=1, user="me")
    check("words", answer.choices[0].message.content, "openai says hello")
    check("end", answer.choices[0].finish_reason, "stop")
    check("tokens", (answer.usage.prompt_tokens, answer.usage.completion_tokens), (120, 9))
    check("object", (answer.object, answer.id[:9]), ("chat.completion", "chatcmpl-"))
    raw = client.chat.completions.with_raw_response.create(
        model="near", messages=[{"role": "user", "content": "hello"}]
    )
    check("destination", (raw.headers["holdfast-destination"], raw.headers["holdfast-zone"]), ("near", "site"))
    check("cost", raw.headers["holdfast-cost-micros"], str(120 * 3 + 9 * 15))
    assert raw.headers["x-request-id"] and int(raw.headers["openai-processing-ms"]) >= 0
    system = [{"role": "system", "content": "You look at parts."}, {"role": "user", "content": "hello"}]
    check("system", ask(system).choices[0].message.content, "openai says hello")
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    format = {"type": "json_schema", "json_schema": {"name": "part", "strict": True, "schema": SCHEMA}}
    answer = ask([{"role": "user", "content": parts}], response_format=format)
    check("schema", json.loads(answer.choices[0].message.content)["label"], "cracked")
    metadata = {"holdfast_class": "internal", "holdfast_priority": "7", "mine": "1"}
    answer = ask(model="cloud", metadata=metadata, store=False)
    check("by metadata", answer.choices[0].message.content, "anthropic says hello")
    headers = {"Holdfast-Class": "public", "Holdfast-Deadline-Ms": "60000"}
    answer = ask(model="far", extra_headers=headers)
    check("by header", answer.choices[0].message.content, "gemini says hello")
    check("a route", ask(model="any").choices[0].message.content, "openai says hello")
    check("a model of several", ask(model=MODEL).choices[0].message.content, "openai says hello")
    hints()


def hints():
    """What changes no answer is told to whoever has a field for it."""
    told = {
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prediction": {"type": "content", "content": "openai says hello"},
    }
    public = {"Holdfast-Class": "public"}

    def shown(model, **more):
        return json.loads(ask("show hints", model=model, extra_headers=public, **more).choices[0].message.content)

    check("hints", shown("near", **told), told)
    check("none", shown("near"), {})
    pieces = [{"type": "text", "text": "openai says "}, {"type": "text", "text": "hello"}]
    foreseen = shown("near", prediction={"type": "content", "content": pieces})
    check("in pieces", foreseen, {"prediction": told["prediction"]})
    check("who asks", shown("cloud", **told), {"user_id": "s"})
    check("by the older name", shown("cloud", user="u"), {"user_id": "u"})
    check("nothing of it there", shown("far", **told), None)
    wrong = openai.BadRequestError
    raises("no text", wrong, "invalid_value", lambda: ask(prediction={"type": "content", "content": [{"type": "image"}]}))
    error = raises("a number", wrong, "invalid_type", lambda: ask(extra_body={"safety_identifier": 7}))
    check("which", error.param, "safety_identifier")


def tools():
    offered = [{"type": "function", "function": TOOL}]
    question = {"role": "user", "content": "weather in Bonn?"}
    for model, name in [("near", "openai"), ("cloud", "anthropic"), ("far", "gemini")]:
        headers = {"Holdfast-Class": "public"}
        answer = ask([question], model=model, tools=offered, extra_headers=headers)
        check("stop", answer.choices[0].finish_reason, "tool_calls")
        call = answer.choices[0].message.tool_calls[0]
        check("call", (call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Bonn"}))
        said = answer.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        answer = ask([question, said, result], model=model, tools=offered, extra_headers=headers)
        check("result", answer.choices[0].message.content, f"{name} says hello")
        stream = ask([question], model=model, tools=offered, extra_headers=headers, stream=True)
        named, arguments, ends = [], "", []
        for chunk in stream:
            for choice in chunk.choices:
                for part in choice.delta.tool_calls or []:
                    named += [part.function.name] if part.function.name else []
                    arguments += part.function.arguments or ""
                ends += [choice.finish_reason] if choice.finish_reason else []
        check("streamed call", (named, json.loads(arguments), ends), (["weather"], {"city": "Bonn"}, ["tool_calls"]))


def streams():
    for model in ["near", "cloud", "far"]:
        headers = {"Holdfast-Class": "public"}
        options = {"include_usage": True}
        stream = ask("count 20", model=model, extra_headers=headers, stream=True, stream_options=options)
        text, ends, usage = words(stream)
        check("all words", text, " ".join(str(n) for n in range(1, 21)))
        check("end", ends, ["stop"])
        check("tokens", (usage.prompt_tokens, usage.completion_tokens), (120, 9))
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        check("destination", stream.response.headers["holdfast-destination"], model)
    text, ends, usage = words(ask("hello", stream=True))
    check("without tokens", (text, ends, usage), ("openai says hello", ["stop"], None))
    # In the middle the caller has enough: the stand-in is asked behind this whether it saw that.
    stream = ask("talk on", stream=True)
    heard = [next(stream) for _ in range(5)]
    stream.close()
    check("before the end", len(heard), 5)


async def together():
    several = AsyncOpenAI(api_key="unused", base_url=URL, max_retries=0, timeout=60)

    async def one(count):
        messages = [{"role": "user", "content": f"count {count}"}]
        stream = await several.chat.completions.create(model="near", messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    texts = await asyncio.gather(*[one(count) for count in range(1, 51)])
    for count, text in enumerate(texts, 1):
        check(f"{count} of 50", text, " ".join(str(n) for n in range(1, count + 1)))


def legacy():
    answer = client.completions.create(model="near", prompt="hello", max_tokens=50)
    check("prompt", answer.choices[0].text, "openai says hello")
    stream = client.completions.create(model="near", prompt="count 9", stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    check("streamed prompt", text, "1 2 3 4 5 6 7 8 9")
    answer = client.completions.create(model="near", prompt="show hints", user="u", max_tokens=50)
    check("who asks", json.loads(answer.choices[0].text), {"user": "u"})
    check("a list of one", client.completions.create(model="near", prompt=["hello"]).choices[0].text, "openai says hello")
    wrong = openai.BadRequestError
    for more, param in [
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": "hello", "n": 2}, "n"),
        ({"prompt": "hello", "best_of": 2}, "best_of"),
        ({"prompt": "hello", "echo": True}, "echo"),
        ({"prompt": "hello", "logprobs": 1}, "logprobs"),
        ({"prompt": "hello", "suffix": "x"}, "suffix"),
    ]:
        codes = "unsupported_parameter unsupported_value"
        error = raises(param, wrong, codes, lambda: client.completions.create(model="near", **more))
        check("which", error.param, param)


def responses():
    answer = client.responses.create(model="near", input="hello", instructions="You look at parts.")
    check("response", (answer.output_text, answer.status), ("openai says hello", "completed"))
    check("tokens", (answer.usage.input_tokens, answer.usage.output_tokens), (120, 9))
    kinds, text = [], ""
    with client.responses.stream(model="near", input="count 9") as stream:
        for event in stream:
            kinds.append(event.type)
            text += event.delta if event.type == "response.output_text.delta" else ""
        final = stream.get_final_response()
    check("streamed", (text, final.output_text), ("1 2 3 4 5 6 7 8 9",) * 2)
    check("events", (kinds[0], kinds[-1]), ("response.created", "response.completed"))
    tool = {"type": "function", "strict": True, **TOOL}
    answer = client.responses.create(model="near", input="weather in Bonn?", tools=[tool])
    call = answer.output[-1]
    check("call", (call.type, call.name, json.loads(call.arguments)), ("function_call", "weather", {"city": "Bonn"}))
    format = {"type": "json_schema", "name": "part", "schema": SCHEMA, "strict": True}
    answer = client.responses.create(model="near", input="what is it?", text={"format": format})
    check("schema", json.loads(answer.output_text)["label"], "cracked")
    told = {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}
    answer = client.responses.create(model="near", input="show hints", **told)
    check("hints", (json.loads(answer.output_text), answer.user), (told, "u"))


def background():
    create = client.responses.create
    answer = create(model="near", input="hello", background=True, metadata={"mine": "1"})
    check("queued", (answer.status, answer.background, answer.output), ("queued", True, []))
    check("its pairs", answer.metadata, {"mine": "1"})
    done = settled(answer)
    check("completed", (done.id, done.status, done.output_text), (answer.id, "completed", "openai says hello"))
    check("its time", done.created_at, answer.created_at)
    check("tokens", (done.usage.input_tokens, done.usage.output_tokens), (120, 9))
    tool = {"type": "function", "strict": True, **TOOL}
    call = settled(create(model="near", input="weather in Bonn?", tools=[tool], background=True)).output[-1]
    check("call", (call.type, call.name, json.loads(call.arguments)), ("function_call", "weather", {"city": "Bonn"}))
    failed = settled(create(model="near", input="fail bad request", background=True))
    check("failed", (failed.status, failed.error.code), ("failed", "server_error"))
    waits = create(model="down", input="hello", background=True)
    check("waits", waits.status, "queued")
    check("cancelled", client.responses.cancel(waits.id).status, "cancelled")
    check("still", client.responses.retrieve(waits.id).status, "cancelled")
    check("deleted", client.responses.delete(waits.id), None)
    kind, code = openai.NotFoundError, "unknown_response"
    raises("gone", kind, code, lambda: client.responses.retrieve(waits.id))
    raises("no such", kind, code, lambda: client.responses.cancel("resp_1"))
    raises("nobody", openai.NotFoundError, "model_not_found", lambda: create(model="nobody", input="x", background=True))
    kept = {"Holdfast-Class": "restricted"}
    denied = openai.PermissionDeniedError
    raises("class", denied, "class_forbids", lambda: create(model="near", input="x", background=True, extra_headers=kept))
    refused = openai.BadRequestError
    raises("not kept", refused, "unsupported_value", lambda: create(model="near", input="x", background=True, store=False))
    told = {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}
    answer = settled(create(model="near", input="show hints", background=True, **told))
    check("hints", (json.loads(answer.output_text), answer.user), (told, "u"))
    asked_before()
    followed()


def asked_before():
    """What a response in the background was asked, as long as it waits."""
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Bonn"}'}
    given = [
        {"role": "user", "content": "weather in Bonn?"},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"role": "assistant", "content": "it rains"},
        {"role": "user", "content": [{"type": "input_text", "text": "and here?"}, {"type": "input_image", "image_url": url, "detail": "low"}]},
    ]
    waits = client.responses.create(model="down", input=given, instructions="be brief", background=True)
    items = client.responses.input_items.list

    def said(item):
        if item.type == "message":
            return (item.role, [piece.text for piece in item.content if hasattr(piece, "text")])
        return (item.call_id, item.output if item.type == "function_call_output" else item.arguments)

    want = [
        ("user", ["weather in Bonn?"]),
        ("c1", '{"city":"Bonn"}'),
        ("c1", "rain"),
        ("assistant", ["it rains"]),
        ("user", ["and here?"]),
    ]
    first = items(waits.id, order="asc")
    check("in order", [said(item) for item in first.data], want)
    check("a picture", (first.data[-1].content[1].image_url, first.data[-1].content[1].detail), (url, "low"))
    check("whole", (first.has_more, first.first_id, first.last_id), (False, first.data[0].id, first.data[-1].id))
    check("the last one first", [said(item) for item in items(waits.id)], want[::-1])
    # The client asks for page after page.
    check("by pages", [said(item) for item in items(waits.id, order="asc", limit=2)], want)
    behind = items(waits.id, order="asc", after=first.data[2].id, limit=1)
    check("behind one", ([said(item) for item in behind.data], behind.has_more), (want[3:4], True))
    wrong = openai.BadRequestError
    raises("no such item", wrong, "invalid_value", lambda: items(waits.id, after="in_1"))
    raises("too many", wrong, "invalid_value", lambda: items(waits.id, limit=101))
    raises("no such", openai.NotFoundError, "unknown_response", lambda: items("resp_1"))
    client.responses.cancel(waits.id)
    done = settled(client.responses.create(model="near", input="hello", background=True))
    error = raises("over", openai.NotFoundError, "input_not_kept", lambda: items(done.id))
    assert "until the response has its end" in str(error), error


def followed():
    """Responses in the background as events: to the end, and again from one of them on."""
    stream = client.responses.create(model="near", input="count 9", background=True, stream=True)
    events = list(stream)
    kinds = [event.type for event in events]
    check("begins", kinds[:3], ["response.created", "response.queued", "response.in_progress"])
    check("ends", (kinds[-1], events[-1].response.output_text), ("response.completed", "1 2 3 4 5 6 7 8 9"))
    check("numbers", [event.sequence_number for event in events], list(range(len(events))))
    id = events[0].response.id
    for after in [0, 3, len(events) - 2]:
        rest = list(client.responses.retrieve(id, stream=True, starting_after=after))
        check(f"from {after} on", [event.to_dict() for event in rest], [event.to_dict() for event in events[after + 1 :]])
    with client.responses.stream(response_id=id) as stream:
        check("gathered", stream.get_final_response().output_text, "1 2 3 4 5 6 7 8 9")
    # Who goes away in the middle takes nothing back.
    stream = client.responses.create(model="down", input="hello", background=True, stream=True)
    waits = next(iter(stream)).response
    stream.close()
    check("waits", client.responses.retrieve(waits.id).status in ("queued", "in_progress"), True)
    client.responses.cancel(waits.id)
    last = list(client.responses.retrieve(waits.id, stream=True))[-1]
    check("cancelled", (last.type, last.sequence_number), ("response.cancelled", 3))


def held():
    """A completion that nobody answers now is held, and is a completion once it is there."""
    hold = {"Holdfast-Hold": "true", "Idempotency-Key": "held-by-its-client"}
    raw = client.chat.completions.with_raw_response
    messages = [{"role": "user", "content": "hello"}]
    answer = raw.create(model="none", messages=messages, extra_headers=hold)
    check("accepted", answer.status_code, 202)
    check("where", answer.headers["location"].startswith("/v1/requests/"), True)
    told = answer.parse()
    check("no completion yet", (told.choices, told.state, told.model), (None, "held", "none"))
    again = ask(model="none", extra_headers=hold)
    check("the same", (again.id, again.choices), (told.id, None))
    now = ask(model="near", extra_headers={"Holdfast-Hold": "true"})
    check("at once", now.choices[0].message.content, "openai says hello")
    now = ask(model="near", metadata={"holdfast_hold": "true"})
    check("by metadata", now.choices[0].message.content, "openai says hello")
    raises("streamed", openai.BadRequestError, "unsupported_value", lambda: ask(extra_headers=hold, stream=True))


def settled(response):
    """A response in the background when it has come to its end."""
    for _ in range(600):
        if response.status not in ("queued", "in_progress"):
            return response
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    raise AssertionError(f"{response} is not over")


def embeddings():
    texts = ["a part", "another part"]
    answer = client.embeddings.create(model="near", input=texts)
    check("vectors", [item.embedding[:2] for item in answer.data], [[6.0, 0.0], [12.0, 1.0]])
    check("tokens", answer.usage.prompt_tokens, 8)
    answer = client.embeddings.create(model="near", input="one", encoding_format="float", dimensions=8)
    check("numbers", (len(answer.data[0].embedding), answer.data[0].embedding[0]), (8, 3.0))
    packed = client.embeddings.create(model="near", input="one", encoding_format="base64", dimensions=8).data[0]
    check("base64", struct.unpack("<8f", base64.b64decode(packed.embedding))[:2], (3.0, 0.0))
    for tokens, want in [([5, 6, 7], [3.0]), ([[5, 6, 7]], [3.0]), ([[5, 6], [7]], [2.0, 1.0])]:
        answer = client.embeddings.create(model="near", input=tokens, user="u")
        check("tokens", [item.embedding[0] for item in answer.data], want)
    error = thrown("mixed", openai.BadRequestError, lambda: client.embeddings.create(model="near", input=["one", 2]))
    check("which", (error.code, error.param), ("invalid_value", "input[1]"))
    headers = {"Holdfast-Class": "public"}
    kind, codes = openai.BadRequestError, "unsupported_by_destination"
    far = {"model": "far", "extra_headers": headers}
    error = raises("no tokens there", kind, codes, lambda: client.embeddings.create(input=[5, 6, 7], **far))
    assert "it has no input of tokens" in str(error), error
    raises("no vectors there", kind, codes, lambda: client.embeddings.create(model="cloud", input="one", extra_headers=headers))


def transcriptions():
    wav = b"RIFF\xa4\xbb\0\0WAVEfmt \x10\0\0\0" + bytes(48_024)
    heard = client.audio.transcriptions.create(model="near", file=("a.wav", wav), language="de")
    check("heard", heard.text, f"{len(wav)} bytes in de")
    text = client.audio.transcriptions.create(model="near", file=("a.wav", wav), response_format="text")
    check("a bare text", text.strip(), f"{len(wav)} bytes in any")
    kept = {"Holdfast-Class": "restricted"}
    create = client.audio.transcriptions.create
    timed_transcriptions(("a.wav", wav))
    raises("class", openai.PermissionDeniedError, "class_forbids", lambda: create(model="near", file=("a.wav", wav), extra_headers=kept))


def timed_transcriptions(file):
    """Forms with more than the words, and how a recording is cut."""
    heard = f"{len(file[1])} bytes in any"

    def hear(**more):
        return client.audio.transcriptions.create(model="near", file=file, **more)

    check("srt", hear(response_format="srt"), f"1\n00:00:00,000 --> 00:00:01,000\n{heard}\n\n\n")
    check("vtt", hear(response_format="vtt"), f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{heard}\n\n")
    verbose = hear(response_format="verbose_json")
    check("verbose", (verbose.text, verbose.language, verbose.words), (heard, "english", None))
    check("segments", [(each.start, each.end) for each in verbose.segments], [(0.0, 1.0)])
    both = hear(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    check("words", ([each.word for each in both.words], len(both.segments)), ([heard], 1))
    check("words alone", hear(response_format="verbose_json", timestamp_granularities=["word"]).segments, None)
    check("who speaks", hear(response_format="diarized_json").segments[0].speaker, "A")
    check("how sure", hear(include=["logprobs"]).logprobs[0].logprob, -0.5)
    check("cut anywhere", hear(chunking_strategy="auto").text, f"{heard}, cut anywhere")
    cut = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
    told = "threshold 0.5, prefix_padding_ms 300, silence_duration_ms 200"
    check("cut", hear(chunking_strategy=cut).text, f"{heard}, {told}")
    wrong = openai.BadRequestError
    for more, param, code in [
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "invalid_value"),
        ({"response_format": "xml"}, "response_format", "invalid_value"),
        ({"stream": True}, "stream", "unsupported_value"),
        ({"known_speaker_names": ["x"]}, "known_speaker_names[]", "unsupported_parameter"),
    ]:
        error = thrown(param, wrong, lambda: hear(**more))
        check("which", (error.param, error.code), (param, code))


def models():
    ids = [model.id for model in client.models.list()]
    for name in ["any", "none", "near", "cloud", "far", "down", MODEL]:
        assert name in ids, f"{name} is not in {ids}"
    check("one", client.models.retrieve("near").id, "near")
    check("a model with a colon", client.models.retrieve(MODEL).id, MODEL)
    raises("no such", openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("nobody"))


def errors():
    raises("not offered", openai.NotFoundError, "unknown_path", client.files.list)
    error = raises("unknown model", openai.NotFoundError, "model_not_found", lambda: ask(model="nobody"))
    assert "near" in str(error) and "any" in str(error), error
    kept = {"Holdfast-Class": "restricted"}
    error = raises("class", openai.PermissionDeniedError, "class_forbids", lambda: ask(extra_headers=kept))
    assert "restricted data may not go to near" in str(error), error
    raises("default class", openai.PermissionDeniedError, "class_forbids", lambda: ask(model="cloud"))
    error = raises("down", openai.InternalServerError, "unreachable link_down", lambda: ask(model="down"))
    check("status", error.status_code, 503)
    error = raises("link", openai.InternalServerError, "unreachable link_down", lambda: ask(model="none"))
    assert error.response.headers["retry-after"] == "1", error
    check("a route goes on", ask(model="any", stream=True).response.headers["holdfast-destination"], "near")
    raises("bad request", openai.BadRequestError, "refused_by_destination", lambda: ask("fail bad request"))
    raises("filter", openai.BadRequestError, "content_filter", lambda: ask("fail safety"))
    raises("broken", openai.InternalServerError, "failed", lambda: ask("fail transient"))
    for what, more in [
        ("unknown", {"extra_body": {"colour": "blue"}}),
        ("unsupported", {"n": 2}),
        ("kept", {"store": True}),
        ("class", {"metadata": {"holdfast_class": "secret"}}),
        ("metadata", {"metadata": {"holdfast_clas": "public"}}),
        ("header", {"extra_headers": {"Holdfast-Clas": "public"}}),
    ]:
        error = thrown(what, openai.BadRequestError, lambda: ask(**more))
        check(what, error.status_code, 400)
    dear = {"Holdfast-Cost-Limit-Micros": "10"}
    raises("cost", openai.BadRequestError, "cost_limit", lambda: ask(extra_headers=dear))
    connections()
    error = raises("throttled", openai.RateLimitError, "rate_limit_exceeded", lambda: ask("fail throttled", model="throttled"))
    check("wait", error.response.headers["retry-after"], "7")
    raises("credit", openai.RateLimitError, "insufficient_quota", lambda: ask("fail out of credit", model="poor"))
    raises("credential", openai.InternalServerError, "unauthorised", lambda: ask("fail authentication", model="locked"))
    late = {"Holdfast-Deadline-Ms": "300"}
    raises("silent", openai.InternalServerError, "timed_out", lambda: ask(model="silent", extra_headers=late))


def connections():
    """What the client raises without an answer; who went away is no failure of the destination."""
    nobody = OpenAI(api_key="unused", base_url=NOBODY, max_retries=0)
    thrown("nobody", openai.APIConnectionError, nobody.models.list)
    thrown("late", openai.APITimeoutError, lambda: ask(model="silent", timeout=0.2))
    # A stream that broke off after a word is no whole one.
    heard = []

    def listen():
        for chunk in ask(model="cut", stream=True):
            heard.extend(choice.delta.content or "" for choice in chunk.choices)

    error = thrown("cut", openai.APIError, listen)
    check("cut after", ("".join(heard), error.code), ("half", "interrupted"))


def tokens():
    keys = json.loads(os.environ["KEYS"])
    internal = {"Holdfast-Class": "internal"}
    messages = [{"role": "user", "content": "hello"}]

    def create(of, model, headers, **more):
        return of.chat.completions.create(model=model, messages=messages, extra_headers=headers, **more)

    unknown, code = openai.AuthenticationError, "invalid_api_key"
    raises("unknown", unknown, code, lambda: create(client, "near", internal))
    raises("unknown, a stream", unknown, code, lambda: create(client, "near", internal, stream=True))
    raises("unknown, a list", unknown, code, client.models.list)
    near = client.with_options(api_key=keys["near"])
    check("its own", create(near, "near", internal).choices[0].message.content, "openai says hello")
    check("its own in pieces", words(create(near, "near", internal, stream=True))[0], "openai says hello")
    denied, code = openai.PermissionDeniedError, "insufficient_permissions"
    raises("model", denied, code, lambda: create(near, "other", internal))
    raises("class", denied, code, lambda: create(near, "near", {"Holdfast-Class": "public"}))
    raises("no class", denied, code, lambda: create(near, "near", {}))
    check("what it may ask", [model.id for model in near.models.list()], ["near"])
    raises("not to be seen", openai.NotFoundError, "model_not_found", lambda: near.models.retrieve("other"))
    twice = client.with_options(api_key=keys["twice"])
    for turn in [1, 2]:
        check(f"{turn} of 2", create(twice, "near", internal).choices[0].message.content, "openai says hello")
    error = thrown("too often", openai.RateLimitError, lambda: create(twice, "near", internal))
    check("its code", error.code, "rate_limit_exceeded")
    check("wait", 1 <= int(error.response.headers["retry-after"]) <= 31, True)


for part in sys.argv[2:]:
    asked = globals()[part]()
    if asyncio.iscoroutine(asked):
        asyncio.run(asked)
    print(part, "passed")
print(f"gateway: {passed} checks passed")
