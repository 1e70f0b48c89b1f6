/* Asks a gateway through the official Node SDKs: every check × client × upstream, one JSON line each.

Started by `python -m tools.clients`, which copies it beside the installed SDKs. The first argument is JSON: `gateway`
and `simulator` (root URLs), `key` (of a caller), `admin` (key), `upstreams` ({dialect: {provider, model}}). A line:
{"client", "upstream", "check", "passed", "said"}; said is empty or what went wrong. Exit code 0 whatever failed. */

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { ApiError, FunctionCallingConfigMode, GoogleGenAI } from "@google/genai";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { gateway, simulator, key, admin, upstreams } = JSON.parse(process.argv[2]);
const PATIENCE = 20_000; // milliseconds for one check
const MODES = ["plain", "stream", "helper"]; // in one piece; the SDK's raw events; the SDK's own help with streams

const Weather = z.strictObject({
  city: z.string(),
  sky: z.enum(["clear", "cloudy"]),
  winds: z.array(z.strictObject({ speed: z.number(), gusts: z.boolean() })),
});
const SIMULATED = { city: "simulated", sky: "clear", winds: [{ speed: 1, gusts: true }] }; // by the simulator
const SCHEMA = z.toJSONSchema(Weather);
delete SCHEMA.$schema;

const TOOLS = [["weather", "city"], ["clock", "zone"]].map(([name, member]) => ({
  name,
  description: `Tell the ${name}.`,
  schema: {
    type: "object",
    properties: { [member]: { type: "string" } },
    required: [member],
    additionalProperties: false,
  },
}));

const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC",
  "base64",
); // one red pixel

const joined = (texts) => texts.filter(Boolean).join("");

async function gathered(stream) {
  const all = [];
  for await (const each of stream) all.push(each);
  return all;
}

/* A turn of any client: {text, calls: [{id, name, args}], said, finish, parsed, pieces, tokens}.
`said` goes back into the history for it; `pieces` is in how many the text came, `tokens` [input, output]. */

class Chat {
  static dialect = "openai_chat";
  static sdk = "openai";
  static errors = OpenAI;
  static finishes = ["stop", "tool_calls"];

  constructor(callerKey) {
    this.api = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: callerKey, maxRetries: 0, timeout: PATIENCE });
  }

  prompt(text, image) {
    if (!image) return [{ role: "user", content: text }];
    const url = `data:image/png;base64,${PNG.toString("base64")}`;
    return [{ role: "user", content: [{ type: "text", text }, { type: "image_url", image_url: { url } }] }];
  }

  results(turn, texts) {
    return turn.calls.map((call, n) => ({ role: "tool", tool_call_id: call.id, content: texts[n] }));
  }

  async ask(model, messages, mode, { tools, weather } = {}) {
    const body = { model, messages };
    if (tools) {
      body.tools = TOOLS.map(({ name, schema }) => ({
        type: "function",
        function: { name, parameters: schema, strict: true },
      }));
    }
    if (weather) body.response_format = zodResponseFormat(Weather, "weather");
    const completions = this.api.chat.completions;
    if (mode === "plain") return this.turn(await (weather ? completions.parse(body) : completions.create(body)));
    body.stream_options = { include_usage: true };
    if (mode === "helper") {
      const stream = completions.stream(body);
      let pieces = 0;
      stream.on("content.delta", () => (pieces += 1));
      return { ...this.turn(await stream.finalChatCompletion()), pieces };
    }
    return together(await gathered(await completions.create({ ...body, stream: true })), weather);
  }

  turn(completion) {
    const [{ message, finish_reason: finish }] = completion.choices;
    const calls = (message.tool_calls ?? []).map((call) => ({
      id: call.id,
      name: call.function.name,
      args: JSON.parse(call.function.arguments),
    }));
    const { prompt_tokens: input, completion_tokens: output } = completion.usage;
    const { parsed } = message;
    return { text: message.content ?? "", calls, said: [message], finish, parsed, pieces: 1, tokens: [input, output] };
  }
}

/* Chunks put together as programs without a helper do. */
function together(chunks, weather) {
  const turn = { calls: [], finish: "", tokens: [] };
  const rows = [];
  const pieces = [];
  for (const { choices, usage } of chunks) {
    if (usage) turn.tokens = [usage.prompt_tokens, usage.completion_tokens];
    for (const { delta, finish_reason: finish } of choices) {
      if (delta.content) pieces.push(delta.content);
      turn.finish = finish ?? turn.finish;
      for (const part of delta.tool_calls ?? []) {
        const row = (rows[part.index] ??= { id: part.id, name: part.function.name, text: "" });
        row.text += part.function.arguments ?? "";
      }
    }
  }
  turn.text = joined(pieces);
  turn.pieces = pieces.length;
  turn.calls = rows.map(({ id, name, text }) => ({ id, name, args: JSON.parse(text) }));
  const called = rows.map((row) => ({
    id: row.id,
    type: "function",
    function: { name: row.name, arguments: row.text },
  }));
  turn.said = [{ role: "assistant", content: turn.text || null, ...(rows.length ? { tool_calls: called } : {}) }];
  turn.parsed = weather ? Weather.parse(JSON.parse(turn.text)) : null;
  return turn;
}

class Responses {
  static dialect = "openai_responses";
  static sdk = "openai";
  static errors = OpenAI;
  static finishes = ["completed", "completed"];

  constructor(callerKey) {
    this.api = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: callerKey, maxRetries: 0, timeout: PATIENCE });
  }

  prompt(text, image) {
    if (!image) return [{ role: "user", content: text }];
    const url = `data:image/png;base64,${PNG.toString("base64")}`;
    const seen = { type: "input_image", detail: "auto", image_url: url };
    return [{ role: "user", content: [{ type: "input_text", text }, seen] }];
  }

  results(turn, texts) {
    return turn.calls.map((call, n) => ({ type: "function_call_output", call_id: call.id, output: texts[n] }));
  }

  async ask(model, input, mode, { tools, weather } = {}) {
    const body = { model, input, store: false };
    if (tools) {
      body.tools = TOOLS.map(({ name, schema }) => ({ type: "function", name, parameters: schema, strict: true }));
    }
    if (weather) body.text = { format: zodTextFormat(Weather, "weather") };
    const responses = this.api.responses;
    if (mode === "plain") return this.turn(await (weather ? responses.parse(body) : responses.create(body)));
    let events, turn;
    if (mode === "helper") {
      const stream = responses.stream(body);
      events = await gathered(stream);
      turn = this.turn(await stream.finalResponse());
    } else {
      events = await gathered(await responses.create({ ...body, stream: true }));
      const { response } = events.at(-1);
      turn = this.turn({ ...response, output_text: joined(response.output.map(textOf)) });
      turn.parsed = weather ? Weather.parse(JSON.parse(turn.text)) : null;
    }
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    const texts = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    assert.equal(joined(texts), turn.text);
    return { ...turn, pieces: texts.length };
  }

  turn(response) {
    const calls = response.output
      .filter((item) => item.type === "function_call")
      .map((item) => ({ id: item.call_id, name: item.name, args: JSON.parse(item.arguments) }));
    const { output_text: text, status: finish, output: said, output_parsed: parsed, usage } = response;
    return { text, calls, said, finish, parsed, pieces: 1, tokens: [usage.input_tokens, usage.output_tokens] };
  }
}

const textOf = (item) => joined((item.content ?? []).map((part) => part.text));

class Messages {
  static dialect = "anthropic";
  static sdk = "@anthropic-ai/sdk";
  static errors = Anthropic;
  static finishes = ["end_turn", "tool_use"];

  constructor(callerKey) {
    this.api = new Anthropic({ baseURL: gateway, apiKey: callerKey, maxRetries: 0, timeout: PATIENCE });
  }

  prompt(text, image) {
    if (!image) return [{ role: "user", content: text }];
    const source = { type: "base64", media_type: "image/png", data: PNG.toString("base64") };
    return [{ role: "user", content: [{ type: "image", source }, { type: "text", text }] }];
  }

  results(turn, texts) {
    const content = turn.calls.map((call, n) => ({ type: "tool_result", tool_use_id: call.id, content: texts[n] }));
    return [{ role: "user", content }];
  }

  async ask(model, messages, mode, { tools, weather } = {}) {
    const body = { model, messages, max_tokens: 4096 };
    if (tools) body.tools = TOOLS.map(({ schema, ...tool }) => ({ ...tool, input_schema: schema }));
    if (weather) body.output_config = { format: zodOutputFormat(Weather) };
    if (mode === "plain") return this.turn(await this.api.messages[weather ? "parse" : "create"](body));
    if (mode === "helper") {
      const stream = this.api.messages.stream(body);
      let pieces = 0;
      stream.on("text", () => (pieces += 1));
      return { ...this.turn(await stream.finalMessage()), pieces };
    }
    const turn = this.turn(blocks(await gathered(await this.api.messages.create({ ...body, stream: true }))));
    turn.parsed = weather ? Weather.parse(JSON.parse(turn.text)) : null;
    return turn;
  }

  turn({ content, stop_reason: finish, parsed_output: parsed, usage, pieces = 1 }) {
    const calls = content
      .filter((block) => block.type === "tool_use")
      .map(({ id, name, input: args }) => ({ id, name, args }));
    const text = joined(content.map((block) => block.text));
    const input = usage.input_tokens + (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);
    const said = [{ role: "assistant", content }];
    return { text, calls, said, finish, parsed, pieces, tokens: [input, usage.output_tokens] };
  }
}

/* Raw events put together by their documentation. */
function blocks(events) {
  assert.deepEqual([events[0].type, events.at(-1).type], ["message_start", "message_stop"]);
  const message = { ...events[0].message, content: [], pieces: 0 };
  const inputs = [];
  for (const event of events) {
    if (event.type === "content_block_start") {
      assert.equal(event.index, message.content.length);
      message.content.push({ ...event.content_block });
    } else if (event.type === "content_block_delta") {
      const { delta, index } = event;
      if (delta.type === "text_delta") {
        message.content[index].text += delta.text;
        message.pieces += 1;
      } else if (delta.type === "input_json_delta") inputs[index] = (inputs[index] ?? "") + delta.partial_json;
    } else if (event.type === "content_block_stop") {
      if (inputs[event.index]) message.content[event.index].input = JSON.parse(inputs[event.index]);
    } else if (event.type === "message_delta") {
      message.stop_reason = event.delta.stop_reason;
      message.usage = { ...message.usage, ...event.usage };
    }
  }
  return message;
}

class Gemini {
  static dialect = "gemini";
  static sdk = "@google/genai";
  static finishes = ["STOP", "STOP"];

  constructor(callerKey) {
    this.api = new GoogleGenAI({ apiKey: callerKey, httpOptions: { baseUrl: gateway, timeout: PATIENCE } });
  }

  prompt(text, image) {
    const inlineData = { mimeType: "image/png", data: PNG.toString("base64") };
    return [{ role: "user", parts: image ? [{ text }, { inlineData }] : [{ text }] }];
  }

  results(turn, texts) {
    const parts = turn.calls.map(({ id, name }, n) => ({
      functionResponse: { ...(id ? { id } : {}), name, response: { result: texts[n] } },
    }));
    return [{ role: "user", parts }];
  }

  async ask(model, contents, mode, { tools, weather } = {}) {
    const config = {};
    if (tools) {
      const declared = TOOLS.map(({ schema, ...tool }) => ({ ...tool, parametersJsonSchema: schema }));
      config.tools = [{ functionDeclarations: declared }];
      config.toolConfig = { functionCallingConfig: { mode: FunctionCallingConfigMode.AUTO } };
    }
    if (weather) Object.assign(config, { responseMimeType: "application/json", responseJsonSchema: SCHEMA });
    const { models, chats } = this.api;
    let turn;
    if (mode === "plain") turn = this.turn([await models.generateContent({ model, contents, config })]);
    else if (mode === "stream") {
      turn = this.turn(await gathered(await models.generateContentStream({ model, contents, config })));
    } else {
      const chat = chats.create({ model, config, history: contents.slice(0, -1) });
      turn = this.turn(await gathered(await chat.sendMessageStream({ message: contents.at(-1).parts, config })));
      const kept = chat.getHistory(true).slice(contents.length); // the chat keeps one content of each chunk
      assert.equal(joined(kept.flatMap((content) => content.parts).map((part) => part.text)), turn.text);
      turn.said = [{ role: "model", parts: kept.flatMap((content) => content.parts) }];
    }
    turn.parsed = weather ? Weather.parse(JSON.parse(turn.text)) : null;
    return turn;
  }

  turn(chunks) {
    const candidates = chunks.flatMap((chunk) => chunk.candidates ?? []);
    const parts = candidates.flatMap((candidate) => candidate.content?.parts ?? []);
    const texts = parts.filter((part) => part.text && !part.thought).map((part) => part.text);
    const calls = parts
      .filter((part) => part.functionCall)
      .map(({ functionCall: { id, name, args } }) => ({ id, name, args: args ?? {} }));
    const finish = candidates.map((candidate) => candidate.finishReason).findLast(Boolean);
    const { promptTokenCount: input, candidatesTokenCount: output } = chunks.at(-1).usageMetadata;
    const said = [{ role: "model", parts }];
    return { text: joined(texts), calls, said, finish, pieces: texts.length, tokens: [input, output] };
  }
}

const CLIENTS = [Chat, Responses, Messages, Gemini];

/* Checks of what models are used for: each gets a client and the name that it asks for. */

const told = (name) => `(${name}): … You said: Hello there`;

function assertAnswered(client, turn) {
  assert.deepEqual(turn.calls, []);
  assert.equal(turn.finish, client.constructor.finishes[0]);
  assert.equal(turn.tokens.length, 2);
  for (const count of turn.tokens) assert.ok(count > 0, `tokens ${turn.tokens}`);
}

function assertCalled(client, turn, wanted) {
  assert.deepEqual(turn.calls.map(({ name, args }) => [name, args]), wanted);
  assert.equal(turn.finish, client.constructor.finishes[1]);
}

async function plain(client, name) {
  const turn = await client.ask(name, client.prompt("Hello there"), "plain");
  assert.ok(turn.text.endsWith(told(name)), turn.text);
  assertAnswered(client, turn);
}

async function stream(client, name) {
  for (const mode of ["stream", "helper"]) {
    const turn = await client.ask(name, client.prompt("Hello there"), mode);
    assert.ok(turn.text.endsWith(told(name)), turn.text);
    assert.ok(turn.pieces > 5, `${mode}: the text came in ${turn.pieces} pieces`);
    assertAnswered(client, turn);
  }
}

async function tool(client, name) {
  for (const mode of MODES) {
    const history = client.prompt('Please [call: weather {"city": "Zürich"}]');
    const first = await client.ask(name, history, mode, { tools: true });
    assertCalled(client, first, [["weather", { city: "Zürich" }]]);
    history.push(...first.said, ...client.results(first, ["18 degrees"]));
    const last = await client.ask(name, history, mode, { tools: true });
    assert.match(last.text, /The tool answered: 18 degrees/);
    assertAnswered(client, last);
  }
}

async function parallel(client, name) {
  for (const mode of MODES) {
    const history = client.prompt('[call: weather {"city": "Rome"}] [call: clock {"zone": "CET"}]');
    const first = await client.ask(name, history, mode, { tools: true });
    assertCalled(client, first, [["weather", { city: "Rome" }], ["clock", { zone: "CET" }]]);
    history.push(...first.said, ...client.results(first, ["18 degrees", "noon"]));
    const last = await client.ask(name, history, mode, { tools: true });
    assert.match(last.text, /18 degrees[^]*noon/);
    assertAnswered(client, last);
  }
}

async function image(client, name) {
  const turn = await client.ask(name, client.prompt("What is this?", true), "plain");
  assert.ok(turn.text.includes(`image seen: image/png, ${PNG.length} bytes`), turn.text);
  assert.match(turn.text, /You said: What is this\?/);
}

async function schema(client, name) {
  for (const mode of MODES) {
    const turn = await client.ask(name, client.prompt("The weather?"), mode, { weather: true });
    const parsed = turn.parsed ?? Weather.parse(JSON.parse(turn.text));
    assert.deepEqual(parsed, SIMULATED);
  }
}

/* Checks of what goes wrong. */

async function post(url, body, headers = {}) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  assert.equal(answer.status, 200, `${url}: ${await answer.text()}`);
}

const script = (...faults) => post(`${simulator}/_simulator/script`, { clear: true, faults });

const TYPES = {
  400: "BadRequestError",
  401: "AuthenticationError",
  404: "NotFoundError",
  429: "RateLimitError",
  502: "InternalServerError",
}; // in both OpenAI's and Anthropic's SDK; Google's has one for all, with the status

async function assertFails(client, name, mode, status, words) {
  const raised = await client.ask(name, client.prompt("Hello"), mode).then(
    () => null,
    (error) => error,
  );
  assert.ok(raised, `${mode}: answered, wanted ${status}`);
  const { errors, sdk } = client.constructor;
  const wanted = errors ? errors[TYPES[status]] : ApiError;
  assert.equal(raised.constructor, wanted, `${mode}: ${sdk} raised ${raised.constructor.name}: ${raised.message}`);
  assert.equal(raised.status, status);
  assert.match(raised.message, words);
  if (errors) assert.ok(raised.requestID, "no request id");
  else assert.equal(JSON.parse(raised.message).error.code, status);
}

/* The provider answers with *status*, if it is spoken to in *dialect*; the client then sees *seen*. */
async function faulty(client, { name, provider, dialect }, status, seen, words) {
  for (const mode of ["plain", "stream"]) {
    await script({ kind: "chat", provider, dialect, status });
    try {
      await assertFails(client, name, mode, seen, words);
    } finally {
      await script();
      await post(`${gateway}/admin/keys/reset`, {}, { "x-keyturn-admin": admin });
    }
  }
}

/* The gateway itself refuses. */
async function refused(client, name, status, words) {
  for (const mode of ["plain", "stream"]) await assertFails(client, name, mode, status, words);
}

const CHECKS = {
  plain: (client, { name }) => plain(client, name),
  stream: (client, { name }) => stream(client, name),
  tool: (client, { name }) => tool(client, name),
  parallel: (client, { name }) => parallel(client, name),
  image: (client, { name }) => image(client, name),
  schema: (client, { name }) => schema(client, name),
  400: (client, upstream) => faulty(client, upstream, 400, 400, /\w/),
  401: (client, { name }) => refused(new client.constructor("nobody"), name, 401, /caller key/),
  404: (client, { provider }) => refused(client, `${provider}/nothing-of-the-kind`, 404, /nothing-of-the-kind/),
  429: (client, upstream) => faulty(client, upstream, 429, 429, /limit/),
  500: (client, upstream) => faulty(client, upstream, 500, 502, /failed/), // the gateway's for a provider's 500
};

async function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

for (const Client of CLIENTS) {
  const client = new Client(key);
  for (const [dialect, upstream] of Object.entries(upstreams)) {
    for (const [check, run] of Object.entries(CHECKS)) {
      let said = "";
      try {
        await within(run(client, { ...upstream, dialect, name: `${upstream.provider}/${upstream.model}` }));
      } catch (error) {
        said = `${error.constructor.name}: ${error.message}`;
      }
      console.log(JSON.stringify({ client: Client.dialect, upstream: dialect, check, passed: !said, said }));
    }
  }
}
