// What a conversation's length costs: the time to the first token of turn 2 and of turn 50 of a conversation of 20,000 tokens, by
// /v1/chat/completions, which is sent all of it each time, and by /v1/responses, which goes on from a state. Both turns are asked for in
// alternation, each time with another message, so that what else the machine does touches them alike. The answers of both are compared
// with those of a server that keeps nothing.
//   node bench/server-turns.mjs [version:layers x width x vocabulary] [threads]
// Needs the build in dist/. The model has random weights, and a token for every byte.

import { syntheticCheckpoint } from "../dist/bench/synthetic-checkpoint.js";
import { shape } from "../dist/cli/option-parsers.js";
import { loadCheckpoint } from "../dist/load.js";
import { createApp, listen } from "../dist/server/index.js";

const [size = "7:12x512x256", threads = "2"] = process.argv.slice(2);
const [turns, tokensOfTurn, rounds] = [50, 400, 15];
const answerTokens = 24;

const model = await loadCheckpoint(syntheticCheckpoint(shape(size), "f32"), {
  dtype: "q8",
  threads: Number(threads),
  tokenizer: "bytes",
});
const keeping = createApp(model, { name: "random", format: "world" });
const forgetting = createApp(model, { name: "random", format: "world", stateCacheBytes: 0 });
const servers = { keeping: await listen(keeping, { port: 0 }), forgetting: await listen(forgetting, { port: 0 }) };

// Only small letters, so that no answer ends before its length.
const letters = Object.fromEntries(Array.from({ length: 26 }, (_, i) => [97 + i, 100]));
const usual = { logit_bias: letters, temperature: 1, top_p: 1, stream: true };

let messages = 0;
/** A message of some length that was not sent before. */
function message() {
  const text = `message ${messages++} `;
  return text.padEnd(tokensOfTurn - answerTokens - "User: \n\nAssistant:\n\n".length, "and more of it ");
}

/** Posts a request and reads its stream. */
async function ask(path, body, { url } = servers.keeping) {
  const started = performance.now();
  let first;
  let id;
  let text = "";
  let usage;
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...usual, ...body }),
  });
  let rest = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + chunk).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = /^data: (\{.*)$/m.exec(event)?.[1];
      if (!data) continue;
      const value = JSON.parse(data);
      const delta = value.choices?.[0]?.delta?.content || (value.type === "response.output_text.delta" && value.delta);
      if (delta) first ??= performance.now() - started;
      text += delta || "";
      id = value.response?.id ?? id;
      usage = value.usage ?? value.response?.usage ?? usage;
    }
  }
  return { first, id, text, usage };
}

const chat = (history, seed, server) =>
  ask(
    "/v1/chat/completions",
    { messages: history, seed, max_tokens: answerTokens, stream_options: { include_usage: true } },
    server,
  );
const respond = (input, previous, seed) =>
  ask("/v1/responses", { input, previous_response_id: previous, seed, max_output_tokens: answerTokens });

// The conversation, by both.
const history = [];
const responses = [];
for (let turn = 1; turn < turns; turn++) {
  const said = message();
  history.push({ role: "user", content: said });
  const { text } = await chat(history, turn);
  history.push({ role: "assistant", content: text });
  responses.push((await respond(said, responses.at(-1), turn)).id);
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const times = { chat: { 2: [], 50: [] }, responses: { 2: [], 50: [] } };
let tokens = 0;
for (let round = -2; round < rounds; round++) {
  for (const turn of [2, 50]) {
    const said = message();
    const byChat = await chat([...history.slice(0, (turn - 1) * 2), { role: "user", content: said }], 1000 + round);
    const byState = await respond(said, responses[turn - 2], 1000 + round);
    if (round < 0) continue; // the first ones find out where prompts part
    times.chat[turn].push(byChat.first);
    times.responses[turn].push(byState.first);
    tokens = byChat.usage.prompt_tokens;
  }
}
for (const [how, { 2: second, 50: last }] of Object.entries(times)) {
  const [a, b] = [median(second), median(last)];
  console.log(
    `${how}: first token of turn 2 after ${a.toFixed(1)} ms, of turn 50 after ${b.toFixed(1)} ms: ${(b / a).toFixed(2)} x`,
  );
}
const asked = [...history, { role: "user", content: message() }];
const [kept, fresh] = [await chat(asked, 7), await chat(asked, 7, servers.forgetting)];
console.log(
  `a prompt of ${tokens} tokens, read whole: first token after ${fresh.first.toFixed(0)} ms; the answers are ` +
    (kept.text === fresh.text && kept.text.length === answerTokens
      ? "equal"
      : `NOT equal: ${kept.text} | ${fresh.text}`),
);
await Promise.all(Object.values(servers).map((server) => server.close()));
await model.dispose();
