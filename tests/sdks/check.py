"""Asks the stand-in of a provider with the provider's own SDK, unmodified.

    check.py VENDOR URL CREDENTIAL_FILE

Every provider is asked the same: words with a system prompt, a picture, a tool and its result, an answer
by a JSON schema, each documented error, and a wrong key. What the SDK raises and counts is what has to
come out. Run by tests/tests/destinations.
"""

import base64
import json
import os
import sys

VENDOR, URL, CREDENTIAL = sys.argv[1:]
MODEL = "model-1:0"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63680000008200817dd0fb1a0000000049454e44ae426082"
)
SYSTEM = "You look at parts."
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["good", "cracked"]}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
    "additionalProperties": False,
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TROUBLES = ["transient", "throttled", "out of credit", "bad request", "authentication", "safety"]

passed = 0


def check(what, got, want):
    global passed
    assert got == want, f"{what}: {got!r} is not {want!r}"
    passed += 1


def key():
    with open(CREDENTIAL) as file:
        return file.read().strip()


def raised(call, *classes):
    """The class that `call` raises, by its name, and its status."""
    try:
        call()
    except classes as error:
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        return type(error).__name__, status
    return "nothing", None


def chat_completions(client, errors, wrong, deployment=False):
    def ask(content, **more):
        system = {"role": "system", "content": SYSTEM}
        messages = [system, *content] if isinstance(content, list) else [system, {"role": "user", "content": content}]
        return client.chat.completions.create(model=MODEL, messages=messages, **more)

    answer = ask("hello", temperature=0.5, max_completion_tokens=50, stop=["x"], seed=1)
    check("words", answer.choices[0].message.content, f"{VENDOR} says hello")
    check("tokens", (answer.usage.prompt_tokens, answer.usage.completion_tokens), (120, 9))
    check("cached", answer.usage.prompt_tokens_details.cached_tokens, 20)
    check("model", answer.model, MODEL)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    format = {"type": "json_schema", "json_schema": {"name": "part", "strict": True, "schema": SCHEMA}}
    answer = ask([{"role": "user", "content": parts}], response_format=format)
    check("schema", json.loads(answer.choices[0].message.content)["label"], "cracked")
    tools = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}]
    question = {"role": "user", "content": "weather in Bonn?"}
    answer = ask([question], tools=tools)
    check("stop", answer.choices[0].finish_reason, "tool_calls")
    call = answer.choices[0].message.tool_calls[0]
    check("call", (call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Bonn"}))
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    said = answer.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    answer = ask([question, said, result], tools=tools)
    check("result", answer.choices[0].message.content, f"{VENDOR} says hello")
    for trouble, want in zip(TROUBLES, errors):
        check(trouble, raised(lambda: ask(f"fail {trouble}"), Exception), want)
    check("wrong key", raised(lambda: wrong.chat.completions.create(model=MODEL, messages=[question]), Exception)[1], 401)
    check("unknown field", raised(lambda: ask("hello", extra_body={"colour": "blue"}), Exception)[1], 400)


OPENAI_ERRORS = [
    ("InternalServerError", 500),
    ("RateLimitError", 429),
    ("RateLimitError", 429),
    ("BadRequestError", 400),
    ("AuthenticationError", 401),
    ("BadRequestError", 400),
]


def openai():
    from openai import OpenAI

    client = OpenAI(api_key=key(), base_url=URL + "/v1", max_retries=0)
    wrong = OpenAI(api_key="sk-wrong", base_url=URL + "/v1", max_retries=0)
    chat_completions(client, OPENAI_ERRORS, wrong)


def azure_openai():
    from openai import AzureOpenAI

    with_key = lambda key: AzureOpenAI(api_key=key, azure_endpoint=URL, api_version="2024-10-21", max_retries=0)
    chat_completions(with_key(key()), OPENAI_ERRORS, with_key("wrong"))


def mistral():
    from mistralai.client import Mistral

    client = Mistral(api_key=key(), server_url=URL)

    def ask(messages, client=client, **more):
        if isinstance(messages, str):
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": messages}]
        return client.chat.complete(model=MODEL, messages=messages, **more)

    answer = ask("hello", temperature=0.5, max_tokens=50, random_seed=1)
    check("words", answer.choices[0].message.content, "mistral says hello")
    check("tokens", (answer.usage.prompt_tokens, answer.usage.completion_tokens), (120, 9))
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    audio = {"type": "input_audio", "input_audio": base64.b64encode(b"RIFF").decode()}
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": url}, audio]
    format = {"type": "json_schema", "json_schema": {"name": "part", "strict": True, "schema": SCHEMA}}
    answer = ask([{"role": "user", "content": parts}], response_format=format)
    check("schema", json.loads(answer.choices[0].message.content)["label"], "cracked")
    tools = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}]
    question = {"role": "user", "content": "weather in Bonn?"}
    answer = ask([question], tools=tools, tool_choice="any")
    call = answer.choices[0].message.tool_calls[0]
    check("call", (call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Bonn"}))
    function = {"name": call.function.name, "arguments": call.function.arguments}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": call.id, "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "rain"}
    check("result", ask([question, said, result], tools=tools).choices[0].message.content, "mistral says hello")
    statuses = [503, 429, 402, 422, 401, 403]
    for trouble, want in zip(TROUBLES, statuses):
        check(trouble, raised(lambda: ask(f"fail {trouble}", retries=None), Exception)[1], want)
    wrong = Mistral(api_key="wrong", server_url=URL)
    check("wrong key", raised(lambda: ask("hello", client=wrong), Exception)[1], 401)


def anthropic():
    from anthropic import Anthropic

    client = Anthropic(api_key=key(), base_url=URL, max_retries=0)

    def ask(messages, client=client, **more):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return client.messages.create(model=MODEL, max_tokens=50, system=SYSTEM, messages=messages, **more)

    answer = ask("hello", stop_sequences=["x"])
    check("words", answer.content[0].text, "anthropic says hello")
    usage = answer.usage
    check("tokens", (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens), (100, 20, 9))
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image", "source": source}]
    format = {"format": {"type": "json_schema", "schema": SCHEMA}}
    answer = ask([{"role": "user", "content": parts}], output_config=format)
    check("schema", json.loads(answer.content[0].text)["label"], "cracked")
    tools = [{"name": "weather", "description": "of a city", "input_schema": CITY}]
    question = {"role": "user", "content": "weather in Bonn?"}
    answer = ask([question], tools=tools, tool_choice={"type": "any"})
    check("stop", answer.stop_reason, "tool_use")
    call = answer.content[0]
    check("call", (call.name, call.input), ("weather", {"city": "Bonn"}))
    said = {"role": "assistant", "content": [call]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}
    check("result", ask([question, said, result], tools=tools).content[0].text, "anthropic says hello")
    errors = [
        ("OverloadedError", 529),
        ("RateLimitError", 429),
        ("BadRequestError", 400),
        ("BadRequestError", 400),
        ("AuthenticationError", 401),
        ("BadRequestError", 400),
    ]
    for trouble, want in zip(TROUBLES, errors):
        check(trouble, raised(lambda: ask(f"fail {trouble}"), Exception), want)
    wrong = Anthropic(api_key="wrong", base_url=URL, max_retries=0)
    check("wrong key", raised(lambda: ask("hello", client=wrong), Exception)[1], 401)
    check("unknown field", raised(lambda: ask("hello", extra_body={"colour": "blue"}), Exception)[1], 400)


def generate_content(client, wrong):
    from google.genai import types

    def ask(contents, client=client, **more):
        config = types.GenerateContentConfig(system_instruction=SYSTEM, **more)
        return client.models.generate_content(model=MODEL, contents=contents, config=config)

    answer = ask("hello", temperature=0.5, max_output_tokens=50, stop_sequences=["x"], seed=1)
    check("words", answer.text, f"{VENDOR} says hello")
    usage = answer.usage_metadata
    counted = usage.prompt_token_count, usage.cached_content_token_count, usage.candidates_token_count
    check("tokens", (*counted, usage.thoughts_token_count), (120, 20, 5, 4))
    picture = types.Part.from_bytes(data=PNG, mime_type="image/png")
    sound = types.Part.from_bytes(data=b"RIFF", mime_type="audio/wav")
    format = {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
    answer = ask(["what is it?", picture, sound], **format)
    check("schema", json.loads(answer.text)["label"], "cracked")
    function = types.FunctionDeclaration(name="weather", description="of a city", parameters_json_schema=CITY)
    tools = {
        "tools": [types.Tool(function_declarations=[function])],
        "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
    }
    question = types.Content(role="user", parts=[types.Part.from_text(text="weather in Bonn?")])
    answer = ask([question], **tools)
    call = answer.function_calls[0]
    check("call", (call.name, call.args), ("weather", {"city": "Bonn"}))
    result = types.Part.from_function_response(name="weather", response={"result": "rain"})
    result = types.Content(role="user", parts=[result])
    answer = ask([question, answer.candidates[0].content, result], **tools)
    check("result", answer.text, f"{VENDOR} says hello")
    for trouble, want in zip(TROUBLES[:5], [503, 429, 403, 400, 400]):
        check(trouble, raised(lambda: ask(f"fail {trouble}"), Exception)[1], want)
    blocked = ask("fail safety").prompt_feedback.block_reason
    check("safety", blocked.value, "PROHIBITED_CONTENT")
    check("wrong key", raised(lambda: ask("hello", client=wrong), Exception)[1], 400)


def gemini():
    from google import genai

    options = genai.types.HttpOptions(base_url=URL)
    with_key = lambda key: genai.Client(api_key=key, http_options=options)
    generate_content(with_key(key()), with_key("wrong"))


def vertex():
    from google import genai
    from google.oauth2 import credentials, service_account

    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    account = service_account.Credentials.from_service_account_file(CREDENTIAL, scopes=scopes)
    options = genai.types.HttpOptions(base_url=URL)

    def with_credentials(credentials):
        place = {"project": "project-1", "location": "eu-central-1"}
        return genai.Client(vertexai=True, credentials=credentials, http_options=options, **place)

    generate_content(with_credentials(account), with_credentials(credentials.Credentials("wrong")))


def bedrock():
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = CREDENTIAL
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        os.environ.pop(name, None)
    config = Config(retries={"total_max_attempts": 1})
    place = {"region_name": "eu-central-1", "endpoint_url": URL, "config": config}
    client = boto3.client("bedrock-runtime", **place)

    def ask(messages, client=client, **more):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": [{"text": messages}]}]
        return client.converse(modelId=MODEL, system=[{"text": SYSTEM}], messages=messages, **more)

    def failure(call):
        try:
            call()
        except ClientError as error:
            return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        return "nothing", None

    words = lambda answer: answer["output"]["message"]["content"][0]["text"]
    answer = ask("hello", inferenceConfig={"maxTokens": 50, "temperature": 0.5, "stopSequences": ["x"]})
    check("words", words(answer), "bedrock says hello")
    usage = answer["usage"]
    counted = usage["inputTokens"], usage["cacheReadInputTokens"], usage["outputTokens"]
    check("tokens", counted, (100, 20, 9))
    picture = {"image": {"format": "png", "source": {"bytes": PNG}}}
    sound = {"audio": {"format": "wav", "source": {"bytes": b"RIFF"}}}
    schema = {"jsonSchema": {"name": "part", "schema": json.dumps(SCHEMA)}}
    format = {"textFormat": {"type": "json_schema", "structure": schema}}
    parts = [{"text": "what is it?"}, picture, sound]
    answer = ask([{"role": "user", "content": parts}], outputConfig=format)
    check("schema", json.loads(words(answer))["label"], "cracked")
    spec = {"name": "weather", "description": "of a city", "inputSchema": {"json": CITY}}
    tools = {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}
    question = {"role": "user", "content": [{"text": "weather in Bonn?"}]}
    answer = ask([question], toolConfig=tools)
    check("stop", answer["stopReason"], "tool_use")
    said = answer["output"]["message"]
    call = said["content"][0]["toolUse"]
    check("call", (call["name"], call["input"]), ("weather", {"city": "Bonn"}))
    result = {"toolUseId": call["toolUseId"], "content": [{"text": "rain"}], "status": "success"}
    result = {"role": "user", "content": [{"toolResult": result}]}
    check("result", words(ask([question, said, result], toolConfig=tools)), "bedrock says hello")
    errors = [
        ("ServiceUnavailableException", 503),
        ("ThrottlingException", 429),
        ("AccessDeniedException", 403),
        ("ValidationException", 400),
        ("InvalidSignatureException", 403),
    ]
    for trouble, want in zip(TROUBLES, errors):
        check(trouble, failure(lambda: ask(f"fail {trouble}")), want)
    check("safety", ask("fail safety")["stopReason"], "content_filtered")
    keys = {"aws_access_key_id": "AKIDFAKE000000000000", "aws_secret_access_key": "wrong"}
    wrong = boto3.client("bedrock-runtime", **place, **keys)
    check("wrong key", failure(lambda: ask("hello", client=wrong))[1], 403)


globals()[VENDOR.replace("-", "_")]()
print(f"{VENDOR}: {passed} checks passed")
