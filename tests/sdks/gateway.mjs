/**
 * The agent's API, asked with OpenAI's own client for Node as it is.
 *
 *     gateway.mjs URL PART...
 *
 * Behind the agent are what gateway.py says. The part `tokens` asks an agent that wants them, and finds
 * its own in `KEYS`, as gateway.py does.
 */

import assert from "node:assert/strict";
import { File } from "node:buffer";
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

// NODE_PATH says where the client is; `import` does not look there.
const OpenAI = createRequire(import.meta.url)("openai");
// What the client itself says to do before Node 20, which Debian 12 does not have.
globalThis.File ??= File;

const [root, ...asked] = process.argv.slice(2);
const URL = `${root}/v1`;
const NOBODY = "http://127.0.0.1:9/v1"; // the discard service
const PNG = Buffer.from(
  "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55" +
    "0000000a49444154789c63680000008200817dd0fb1a0000000049454e44ae426082",
  "hex",
);
const SCHEMA = {
  type: "object",
  properties: { label: { type: "string", enum: ["good", "cracked"] }, confidence: { type: "number" } },
  required: ["label", "confidence"],
  additionalProperties: false,
};
const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const TOOL = { name: "weather", description: "of a city", parameters: CITY };
const MODEL = "model-1:0";
const PUBLIC = { "Holdfast-Class": "public" };
const KEPT = { "Holdfast-Class": "restricted" };

const client = new OpenAI({ apiKey: "unused", baseURL: URL, maxRetries: 0 });
let passed = 0;

function check(what, got, want) {
  assert.deepEqual(got, want, what);
  passed += 1;
}

function holds(what, is) {
  assert.ok(is, what);
  passed += 1;
}

/** What was thrown, which is of this kind and of no other. */
async function thrown(what, kind, call) {
  const error = await Promise.resolve()
    .then(call)
    .then(() => assert.fail(`${what}: nothing was thrown`), (error) => error);
  if (error?.constructor !== kind) throw new Error(`${what}: not the exception`, { cause: error });
  passed += 1;
  return error;
}

/** The client's own exception, its code, and what it says. */
async function raises(what, kind, codes, call) {
  const error = await thrown(what, kind, call);
  holds(`${what}: ${error.code} is not ${codes}`, codes.split(" ").includes(error.code));
  holds(`${what}: no request id`, error.requestID);
  return error;
}

function ask(content = "hello", { model = "near", headers, signal, timeout, ...more } = {}) {
  const messages = Array.isArray(content) ? content : [{ role: "user", content }];
  const options = { headers, signal, ...(timeout && { timeout }) };
  return client.chat.completions.create({ model, messages, ...more }, options);
}

const said = (answer) => answer.choices[0].message.content;
const numbers = (count) => Array.from({ length: count }, (_, at) => at + 1).join(" ");

/** The words of a stream, why it ended, and its tokens. */
async function words(stream) {
  const [text, ends] = [[], []];
  let usage = null;
  for await (const chunk of stream) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      text.push(choice.delta.content ?? "");
      if (choice.finish_reason) ends.push(choice.finish_reason);
    }
  }
  return [text.join(""), ends, usage];
}

async function completions() {
  const answer = await ask("hello", { temperature: 0.5, max_completion_tokens: 50, stop: ["x"], seed: 1, user: "me" });
  check("words", said(answer), "openai says hello");
  check("end", answer.choices[0].finish_reason, "stop");
  check("tokens", [answer.usage.prompt_tokens, answer.usage.completion_tokens], [120, 9]);
  check("object", [answer.object, answer.id.slice(0, 9)], ["chat.completion", "chatcmpl-"]);
  const { data, response, request_id } = await ask().withResponse();
  check("with its response", said(data), "openai says hello");
  const at = (name) => response.headers.get(name);
  check("destination", [at("holdfast-destination"), at("holdfast-zone")], ["near", "site"]);
  check("cost", at("holdfast-cost-micros"), String(120 * 3 + 9 * 15));
  holds("time", at("x-request-id") && Number(at("openai-processing-ms")) >= 0);
  check("request id", [request_id, data._request_id], [at("x-request-id"), at("x-request-id")]);
  const raw = await ask().asResponse();
  check("as it is", [raw.status, said(await raw.json())], [200, "openai says hello"]);
  const system = [{ role: "system", content: "You look at parts." }, { role: "user", content: "hello" }];
  check("system", said(await ask(system)), "openai says hello");
  const url = `data:image/png;base64,${PNG.toString("base64")}`;
  const content = [{ type: "text", text: "what is it?" }, { type: "image_url", image_url: { url } }];
  const response_format = { type: "json_schema", json_schema: { name: "part", strict: true, schema: SCHEMA } };
  const part = await ask([{ role: "user", content }], { response_format });
  check("schema", JSON.parse(said(part)).label, "cracked");
  const parse = { model: "near", messages: [{ role: "user", content }], response_format };
  const parsed = await client.chat.completions.parse(parse);
  check("parsed", JSON.parse(said(parsed)).label, "cracked");
  const metadata = { holdfast_class: "internal", holdfast_priority: "7", mine: "1" };
  const cloud = await ask("hello", { model: "cloud", metadata, store: false });
  check("by metadata", said(cloud), "anthropic says hello");
  const headers = { ...PUBLIC, "Holdfast-Deadline-Ms": "60000" };
  check("by header", said(await ask("hello", { model: "far", headers })), "gemini says hello");
  check("a route", said(await ask("hello", { model: "any" })), "openai says hello");
  check("a model of several", said(await ask("hello", { model: MODEL })), "openai says hello");
}

async function tools() {
  const offered = [{ type: "function", function: TOOL }];
  const question = { role: "user", content: "weather in Bonn?" };
  for (const [model, name] of [["near", "openai"], ["cloud", "anthropic"], ["far", "gemini"]]) {
    const given = { model, tools: offered, headers: PUBLIC };
    const answer = await ask([question], given);
    check("stop", answer.choices[0].finish_reason, "tool_calls");
    const { message } = answer.choices[0];
    const [call] = message.tool_calls;
    check("call", [call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "Bonn" }]);
    // A message goes back as it came, with all that is in it.
    const result = { role: "tool", tool_call_id: call.id, content: "rain" };
    check("result", said(await ask([question, message, result], given)), `${name} says hello`);
    const [named, ends] = [[], []];
    let text = "";
    for await (const chunk of await ask([question], { ...given, stream: true })) {
      for (const choice of chunk.choices) {
        for (const part of choice.delta.tool_calls ?? []) {
          if (part.function.name) named.push(part.function.name);
          text += part.function.arguments ?? "";
        }
        if (choice.finish_reason) ends.push(choice.finish_reason);
      }
    }
    check("streamed call", [named, JSON.parse(text), ends], [["weather"], { city: "Bonn" }, ["tool_calls"]]);
    // The client's own loops call what is called and ask again with its result.
    for (const stream of [false, true]) {
      const cities = [];
      const weather = {
        ...TOOL,
        parse: JSON.parse,
        function: ({ city }) => {
          cities.push(city);
          return "rain";
        },
      };
      const runner = client.chat.completions.runTools(
        { model, messages: [question], tools: [{ type: "function", function: weather }], stream },
        { headers: PUBLIC },
      );
      check(`called by the client, stream: ${stream}`, [await runner.finalContent(), cities], [
        `${name} says hello`,
        ["Bonn"],
      ]);
    }
  }
}

/** Leaves an endless stream after its fifth piece; what is at hand by then comes still, and then it ends. */
async function leaves(what, pieces, leave) {
  let heard = 0;
  for await (const _ of pieces) {
    heard += 1;
    if (heard === 5) leave();
  }
  holds(`${what}: ${heard}`, heard >= 5);
}

async function streams() {
  for (const model of ["near", "cloud", "far"]) {
    const options = { model, headers: PUBLIC, stream: true, stream_options: { include_usage: true } };
    const { data, response } = await ask("count 20", options).withResponse();
    const [text, ends, usage] = await words(data);
    check("all words", text, numbers(20));
    check("end", ends, ["stop"]);
    check("tokens", [usage.prompt_tokens, usage.completion_tokens], [120, 9]);
    holds("type", response.headers.get("content-type").startsWith("text/event-stream"));
    check("destination", response.headers.get("holdfast-destination"), model);
    const messages = [{ role: "user", content: "count 20" }];
    const helper = client.chat.completions.stream(
      { model, messages, stream_options: { include_usage: true } },
      { headers: PUBLIC },
    );
    let [deltas, snapshot] = ["", ""];
    helper.on("content", (delta, whole) => {
      deltas += delta;
      snapshot = whole;
    });
    const message = await helper.finalMessage();
    check("final message", [message.role, message.content], ["assistant", numbers(20)]);
    check("as it grew", [deltas, snapshot], [numbers(20), numbers(20)]);
    const final = await helper.finalChatCompletion();
    check("final completion", [final.object, final.choices[0].finish_reason], ["chat.completion", "stop"]);
    check("final tokens", (await helper.totalUsage()).total_tokens, 129);
  }
  check("without tokens", await words(await ask("hello", { stream: true })), ["openai says hello", ["stop"], null]);
  const [left, right] = (await ask("count 9", { stream: true })).tee();
  check("twice", (await Promise.all([words(left), words(right)])).map(([text]) => text), [numbers(9), numbers(9)]);
  // In the middle the caller has enough: the stand-in is asked behind this whether it saw each of them.
  const aborted = await ask("talk on", { stream: true });
  await leaves("its controller", aborted, () => aborted.controller.abort());
  const abort = new AbortController();
  const signalled = await ask("talk on", { stream: true, signal: abort.signal });
  await leaves("a signal", signalled, () => abort.abort());
  let heard = 0;
  for await (const _ of await ask("talk on", { stream: true })) {
    heard += 1;
    if (heard === 5) break;
  }
  check("a loop that is left", heard, 5);
  const messages = [{ role: "user", content: "talk on" }];
  const helper = client.chat.completions.stream({ model: "near", messages });
  let chunks = 0;
  helper.on("chunk", () => {
    chunks += 1;
    if (chunks === 5) helper.abort();
  });
  await thrown("the helper", OpenAI.APIUserAbortError, () => helper.finalMessage());
  holds("the helper's end", helper.aborted && chunks >= 5);
}

async function together() {
  const several = new OpenAI({ apiKey: "unused", baseURL: URL, maxRetries: 0, timeout: 60_000 });
  const one = async (count) => {
    const messages = [{ role: "user", content: `count ${count}` }];
    const [text] = await words(await several.chat.completions.create({ model: "near", messages, stream: true }));
    return text;
  };
  const counts = Array.from({ length: 50 }, (_, at) => at + 1);
  const texts = await Promise.all(counts.map(one));
  counts.forEach((count, at) => check(`${count} of 50`, texts[at], numbers(count)));
}

async function legacy() {
  const answer = await client.completions.create({ model: "near", prompt: "hello", max_tokens: 50 });
  check("prompt", answer.choices[0].text, "openai says hello");
  const stream = await client.completions.create({ model: "near", prompt: "count 9", stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? "";
  check("streamed prompt", text, numbers(9));
  const endless = await client.completions.create({ model: "near", prompt: "talk on", stream: true });
  await leaves("left in the middle", endless, () => endless.controller.abort());
}

async function responses() {
  const create = (more) => client.responses.create({ model: "near", ...more });
  const answer = await create({ input: "hello", instructions: "You look at parts." });
  check("response", [answer.output_text, answer.status], ["openai says hello", "completed"]);
  check("tokens", [answer.usage.input_tokens, answer.usage.output_tokens], [120, 9]);
  const stream = client.responses.stream({ model: "near", input: "count 9" });
  const kinds = [];
  let text = "";
  for await (const event of stream) {
    kinds.push(event.type);
    text += event.type === "response.output_text.delta" ? event.delta : "";
  }
  const final = await stream.finalResponse();
  check("streamed", [text, final.output_text], [numbers(9), numbers(9)]);
  check("events", [kinds[0], kinds.at(-1)], ["response.created", "response.completed"]);
  const numbered = [];
  for await (const event of await create({ input: "count 9", stream: true })) numbered.push(event.sequence_number);
  check("numbers", numbered, [...numbered.keys()]);
  const endless = client.responses.stream({ model: "near", input: "talk on" });
  const left = async () => {
    for await (const event of endless) if (event.type === "response.output_text.delta") endless.abort();
  };
  await thrown("left in the middle", OpenAI.APIUserAbortError, left);
  const tool = { type: "function", strict: true, ...TOOL };
  const question = { role: "user", content: "weather in Bonn?" };
  const asking = await create({ input: [question], tools: [tool] });
  const call = asking.output.at(-1);
  check("call", [call.type, call.name, JSON.parse(call.arguments)], ["function_call", "weather", { city: "Bonn" }]);
  const result = { type: "function_call_output", call_id: call.call_id, output: "rain" };
  const told = await create({ input: [question, ...asking.output, result], tools: [tool] });
  check("result", told.output_text, "openai says hello");
  const format = { type: "json_schema", name: "part", schema: SCHEMA, strict: true };
  const part = await create({ input: "what is it?", text: { format } });
  check("schema", JSON.parse(part.output_text).label, "cracked");
  const parsed = await client.responses.parse({ model: "near", input: "what is it?", text: { format } });
  check("parsed", parsed.output_parsed.label, "cracked");
}

/** A response in the background when it has come to its end. */
async function settled(response) {
  for (let tries = 0; tries < 600; tries += 1) {
    if (!["queued", "in_progress"].includes(response.status)) return response;
    await new Promise((resolve) => setTimeout(resolve, 50));
    response = await client.responses.retrieve(response.id);
  }
  throw new Error(`${response.id} is not over`);
}

async function background() {
  const create = (more, options) => client.responses.create({ model: "near", background: true, ...more }, options);
  const answer = await create({ input: "hello", metadata: { mine: "1" } });
  check("queued", [answer.status, answer.background, answer.metadata], ["queued", true, { mine: "1" }]);
  const done = await settled(answer);
  check("completed", [done.id, done.status, done.output_text], [answer.id, "completed", "openai says hello"]);
  check("tokens", [done.usage.input_tokens, done.usage.output_tokens], [120, 9]);
  const tool = { type: "function", strict: true, ...TOOL };
  const call = (await settled(await create({ input: "weather in Bonn?", tools: [tool] }))).output.at(-1);
  check("call", [call.type, call.name, JSON.parse(call.arguments)], ["function_call", "weather", { city: "Bonn" }]);
  const failed = await settled(await create({ input: "fail safety" }));
  check("failed", [failed.status, failed.error.code], ["failed", "server_error"]);
  const waits = await create({ model: "down", input: "hello" });
  check("cancelled", (await client.responses.cancel(waits.id)).status, "cancelled");
  check("still", (await client.responses.retrieve(waits.id)).status, "cancelled");
  await client.responses.delete(waits.id);
  await raises("gone", OpenAI.NotFoundError, "unknown_response", () => client.responses.retrieve(waits.id));
  await raises("class", OpenAI.PermissionDeniedError, "class_forbids", () => create({ input: "x" }, { headers: KEPT }));
  await raises("refused", OpenAI.BadRequestError, "unsupported_value", () => create({ input: "x", store: false }));
  await followed(create);
}

/** Responses in the background as events: to the end, and again from one of them on. */
async function followed(create) {
  const gathered = async (stream) => {
    const events = [];
    for await (const event of await stream) events.push(event);
    return events;
  };
  const events = await gathered(create({ input: "count 9", stream: true }));
  check("begins", events.slice(0, 2).map((event) => event.type), ["response.created", "response.queued"]);
  check("ends", events.at(-1).type, "response.completed");
  check("numbers", events.map((event) => event.sequence_number), [...events.keys()]);
  const { id } = events[0].response;
  const rest = await gathered(client.responses.retrieve(id, { stream: true, starting_after: 3 }));
  check("from 3 on", rest, events.slice(4));
}

/** A completion that nobody answers now is held, and its client sees that there is no choice yet. */
async function held() {
  const body = (model) => ({ model, messages: [{ role: "user", content: "hello" }] });
  const headers = { "Holdfast-Hold": "true", "Idempotency-Key": "held-by-node" };
  const { data, response } = await client.chat.completions.create(body("none"), { headers }).withResponse();
  check("accepted", [response.status, data.state, data.choices], [202, "held", undefined]);
  const now = await client.chat.completions.create(body("near"), { headers: { "Holdfast-Hold": "true" } });
  check("at once", now.choices[0].message.content, "openai says hello");
}

async function embeddings() {
  // The client asks for base64 where nobody says otherwise, and takes it apart itself.
  const answer = await client.embeddings.create({ model: "near", input: ["a part", "another part"] });
  const firsts = answer.data.map((item) => [...item.embedding.slice(0, 2)]);
  check("vectors", firsts, [[6, 0], [12, 1]]);
  check("tokens", answer.usage.prompt_tokens, 8);
  const plain = { model: "near", input: "one", encoding_format: "float", dimensions: 8 };
  const [{ embedding }] = (await client.embeddings.create(plain)).data;
  check("numbers", [embedding.length, embedding[0]], [8, 3]);
  const [{ embedding: ofTokens }] = (await client.embeddings.create({ model: "near", input: [5, 6, 7, 8], user: "u" })).data;
  check("tokens", ofTokens[0], 4);
  await raises("no vectors there", OpenAI.BadRequestError, "unsupported_by_destination", () =>
    client.embeddings.create({ model: "cloud", input: "one" }, { headers: PUBLIC }),
  );
}

async function transcriptions() {
  const wav = Buffer.concat([Buffer.from("RIFF\xa4\xbb\0\0WAVEfmt \x10\0\0\0", "latin1"), Buffer.alloc(48_024)]);
  const file = await OpenAI.toFile(wav, "a.wav");
  const hear = (more, options) => client.audio.transcriptions.create({ model: "near", file, ...more }, options);
  check("heard", (await hear({ language: "de" })).text, `${wav.length} bytes in de`);
  check("a bare text", (await hear({ response_format: "text" })).trim(), `${wav.length} bytes in any`);
  const folder = mkdtempSync(join(tmpdir(), "gateway-"));
  try {
    const path = join(folder, "b.wav");
    writeFileSync(path, wav);
    const text = (await hear({ file: createReadStream(path) })).text;
    check("read from a file", text, `${wav.length} bytes in any`);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const typed = new File([wav], "c.wav", { type: "audio/wav" });
  check("the platform's own file", (await hear({ file: typed })).text, `${wav.length} bytes in any`);
  const [any, cut] = [`${wav.length} bytes in any`, { type: "server_vad", threshold: 0.5, silence_duration_ms: 200 }];
  const vtt = await hear({ response_format: "vtt" });
  check("subtitles", vtt, `WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n${any}\n\n`);
  const granularities = ["word", "segment"];
  const verbose = await hear({ response_format: "verbose_json", timestamp_granularities: granularities });
  check("times", [verbose.words[0].word, verbose.segments[0].end], [any, 1]);
  check("how sure", (await hear({ include: ["logprobs"] })).logprobs[0].logprob, -0.5);
  check("cut anywhere", (await hear({ chunking_strategy: "auto" })).text, `${any}, cut anywhere`);
  check("cut", (await hear({ chunking_strategy: cut })).text, `${any}, threshold 0.5, silence_duration_ms 200`);
  await raises("class", OpenAI.PermissionDeniedError, "class_forbids", () => hear({}, { headers: KEPT }));
}

async function models() {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  for (const name of ["any", "none", "near", "cloud", "far", "down", MODEL]) {
    holds(`${name} is not in ${ids}`, ids.includes(name));
  }
  check("one", (await client.models.retrieve("near")).id, "near");
  check("a model with a colon", (await client.models.retrieve(MODEL)).id, MODEL);
  await raises("no such", OpenAI.NotFoundError, "model_not_found", () => client.models.retrieve("nobody"));
}

async function errors() {
  const { BadRequestError, InternalServerError, NotFoundError, PermissionDeniedError, RateLimitError } = OpenAI;
  const to = (model, more) => () => ask("hello", { model, ...more });
  await raises("not offered", NotFoundError, "unknown_path", () => client.files.list());
  let error = await raises("unknown model", NotFoundError, "model_not_found", to("nobody"));
  holds(error.message, error.message.includes("near") && error.message.includes("any"));
  check("its place", [error.status, error.param, error.type], [404, "model", "invalid_request_error"]);
  error = await raises("class", PermissionDeniedError, "class_forbids", to("near", { headers: KEPT }));
  holds(error.message, error.message.includes("restricted data may not go to near"));
  await raises("default class", PermissionDeniedError, "class_forbids", to("cloud"));
  error = await raises("down", InternalServerError, "unreachable link_down", to("down"));
  check("status", error.status, 503);
  error = await raises("link", InternalServerError, "unreachable link_down", to("none"));
  check("soon", error.headers.get("retry-after"), "1");
  const { data, response } = await ask("hello", { model: "any", stream: true }).withResponse();
  check("a route goes on", response.headers.get("holdfast-destination"), "near");
  check("and says all", (await words(data))[0], "openai says hello");
  await raises("bad request", BadRequestError, "refused_by_destination", () => ask("fail bad request"));
  await raises("filter", BadRequestError, "content_filter", () => ask("fail safety"));
  await raises("broken", InternalServerError, "failed", () => ask("fail transient"));
  await raises("broken before a piece", InternalServerError, "failed", () => ask("fail transient", { stream: true }));
  for (const [what, more] of [
    ["unknown", { colour: "blue" }],
    ["unsupported", { n: 2 }],
    ["kept", { store: true }],
    ["class", { metadata: { holdfast_class: "secret" } }],
    ["metadata", { metadata: { holdfast_clas: "public" } }],
    ["header", { headers: { "Holdfast-Clas": "public" } }],
  ]) {
    error = await thrown(what, BadRequestError, () => ask("hello", more));
    check(what, error.status, 400);
  }
  const dear = { "Holdfast-Cost-Limit-Micros": "10" };
  await raises("cost", BadRequestError, "cost_limit", to("near", { headers: dear }));
  const helper = client.chat.completions.stream({ model: "nobody", messages: [{ role: "user", content: "hello" }] });
  await raises("of the helper", NotFoundError, "model_not_found", () => helper.finalMessage());
  await connections();
  const failing = (model, how) => () => ask(`fail ${how}`, { model });
  error = await raises("throttled", RateLimitError, "rate_limit_exceeded", failing("throttled", "throttled"));
  check("wait", error.headers.get("retry-after"), "7");
  await raises("credit", RateLimitError, "insufficient_quota", failing("poor", "out of credit"));
  await raises("credential", InternalServerError, "unauthorised", failing("locked", "authentication"));
  const late = { "Holdfast-Deadline-Ms": "300" };
  await raises("silent", InternalServerError, "timed_out", to("silent", { headers: late }));
}

/** What the client raises without an answer; who went away is no failure of the destination. */
async function connections() {
  const nobody = new OpenAI({ apiKey: "unused", baseURL: NOBODY, maxRetries: 0 });
  await thrown("nobody", OpenAI.APIConnectionError, () => nobody.models.list());
  await thrown("late", OpenAI.APIConnectionTimeoutError, () => ask("hello", { model: "silent", timeout: 200 }));
  const signal = AbortSignal.timeout(200);
  await thrown("left", OpenAI.APIUserAbortError, () => ask("hello", { model: "silent", signal }));
  // A stream that broke off after a word is no whole one.
  const cut = await ask("hello", { model: "cut", stream: true });
  let text = "";
  const error = await thrown("cut", OpenAI.APIError, async () => {
    for await (const chunk of cut) text += chunk.choices[0]?.delta.content ?? "";
  });
  check("cut after", [text, error.code], ["half", "interrupted"]);
}

async function tokens() {
  const { AuthenticationError, NotFoundError, PermissionDeniedError, RateLimitError } = OpenAI;
  const keys = JSON.parse(process.env.KEYS);
  const messages = [{ role: "user", content: "hello" }];
  const create = (of, model, headers, more) =>
    of.chat.completions.create({ model, messages, ...more }, { headers });
  const internal = { "Holdfast-Class": "internal" };
  for (const more of [{}, { stream: true }]) {
    await raises("unknown", AuthenticationError, "invalid_api_key", () => create(client, "near", internal, more));
  }
  await raises("unknown, a list", AuthenticationError, "invalid_api_key", () => client.models.list());
  // A form goes out in pieces, and its refusal comes before the last of them.
  for (const size of [4, 48_024, 3_000_000]) {
    const file = await OpenAI.toFile(Buffer.concat([Buffer.from("RIFF"), Buffer.alloc(size)]), "a.wav");
    await raises(`unknown, a recording of ${size}`, AuthenticationError, "invalid_api_key", () =>
      client.audio.transcriptions.create({ model: "near", file }),
    );
  }
  const near = client.withOptions({ apiKey: keys.near });
  check("its own", said(await create(near, "near", internal)), "openai says hello");
  const stream = await create(near, "near", internal, { stream: true });
  check("its own in pieces", (await words(stream))[0], "openai says hello");
  for (const [what, model, headers] of [
    ["model", "other", internal],
    ["class", "near", PUBLIC],
    ["no class", "near", {}],
  ]) {
    await raises(what, PermissionDeniedError, "insufficient_permissions", () => create(near, model, headers));
  }
  const ids = [];
  for await (const model of near.models.list()) ids.push(model.id);
  check("what it may ask", ids, ["near"]);
  await raises("not to be seen", NotFoundError, "model_not_found", () => near.models.retrieve("other"));
  const twice = client.withOptions({ apiKey: keys.twice });
  for (const time of [1, 2]) check(`${time} of 2`, said(await create(twice, "near", internal)), "openai says hello");
  const error = await thrown("too often", RateLimitError, () => create(twice, "near", internal));
  check("its code", error.code, "rate_limit_exceeded");
  const wait = Number(error.headers.get("retry-after"));
  holds(`wait ${wait}`, wait >= 1 && wait <= 31);
}

const PARTS = {
  completions, tools, streams, together, legacy, responses, background, held, embeddings, transcriptions, models, errors, tokens,
};
for (const part of asked) {
  await PARTS[part]();
  console.log(part, "passed");
}
console.log(`gateway: ${passed} checks passed`);
