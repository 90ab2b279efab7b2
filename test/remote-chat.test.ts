// rwkv chat --url: a conversation with a model that a server has.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { rwkv } from "./command.js";
import { type Served, served } from "./served.js";

let tales: Served;
const asked: { path: string; body: Record<string, unknown> }[] = [];
beforeAll(async () => {
  tales = await served({ apiKeys: ["secret"] }, { key: "secret" });
});
afterAll(() => tales.close());

/** A server that notes what it is asked, and answers with these events. */
async function answering(...events: unknown[]): Promise<string> {
  asked.length = 0;
  const server = createServer(async (incoming, outgoing) => {
    let text = "";
    for await (const chunk of incoming) text += chunk;
    if (incoming.method === "GET") return void outgoing.end('{"data": [{"id": "thinker"}]}');
    asked.push({ path: incoming.url!, body: JSON.parse(text) });
    outgoing.setHeader("Content-Type", "text/event-stream");
    for (const event of events)
      outgoing.write(typeof event === "string" ? event : `data: ${JSON.stringify(event)}\n\n`);
    outgoing.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
const piece = (delta: object, finish_reason: string | null = null) => ({ choices: [{ delta, finish_reason }] });

test("answers as the server does, and remembers, undoes and answers again", async () => {
  const messages: { role: "user" | "assistant"; content: string }[] = [];
  const answers: string[] = [];
  for (const content of ["Hello", "Who are you?"]) {
    messages.push({ role: "user", content });
    const wanted = { model: "tales", messages, seed: 3, max_tokens: 20, temperature: 0.9 };
    const answer = (await tales.client.chat.completions.create(wanted)).choices[0]!.message.content!;
    messages.push({ role: "assistant", content: answer });
    answers.push(answer);
  }
  const [first, second] = answers;
  const input = "Hello\nWho are you?\n/retry\n/undo\nWho are you?\n/ask Hello\n/reset\nHello\n/quit\nnot read\n";
  const options = ["--api-key", "secret", "-n", "20", "--seed", "3", "--temperature", "0.9"];
  const { code, stdout, stderr } = await rwkv(["chat", "--url", tales.url, ...options], input);
  expect(stderr).toContain(`tales at ${tales.url}`);
  expect([code, stdout]).toEqual([
    0,
    [first, second, second, second, first, first].map((text) => `${text}\n`).join(""),
  ]);
  const free = await tales.client.completions.create({ model: "tales", prompt: "The king", seed: 3, max_tokens: 20 });
  const generated = await rwkv(["chat", "--url", `${tales.url}/v1/`, ...options.slice(0, 6)], "/generate The king\n");
  expect(generated.stdout).toBe(`${free.choices[0]!.text}\n`);
});

test("asks only for what was given, and says how to think", async () => {
  const url = await answering(
    piece({ reasoning_content: "Hm." }),
    piece({ content: "Yes" }),
    piece({}, "stop"),
    "data: [DONE]\n\n",
  );
  const plain = await rwkv(["chat", "--url", url], "Hi\n/think off\nHo\n/think hide\nHu\n/think loud\n");
  expect(plain.stdout).toBe("Yes\nYes\nYes\n");
  expect(plain.stderr.match(/^Hm\.$/gm)).toHaveLength(2);
  expect(plain.stderr).toContain("(thinking)");
  expect(plain.stderr).toContain("error: /think: expected on, off");
  const user = { role: "user", content: "Hi" };
  expect(asked[0]).toEqual({
    path: "/v1/chat/completions",
    body: { model: "thinker", messages: [user], stream: true },
  });
  expect(asked[1]!.body).toMatchObject({
    reasoning_effort: "none",
    messages: [user, { role: "assistant", content: "Yes" }, {}],
  });
  const given = [
    "--model",
    "other",
    "--system",
    "Be brief.",
    "--top-p",
    "0.5",
    "--banned-tokens",
    "7",
    "--logit-bias",
    "8:1",
  ];
  await rwkv(["chat", "--url", url, ...given, "--thinking", "long"], "Hi\n");
  expect(asked.at(-1)!.body).toEqual({
    model: "other",
    messages: [{ role: "system", content: "Be brief." }, user],
    top_p: 0.5,
    logit_bias: [
      [8, 1],
      [7, false],
    ],
    reasoning_effort: "high",
    stream: true,
  });
});

test("says what is wrong, and goes on", async () => {
  const wrongKey = await rwkv(["chat", "--url", tales.url], "Hi\n");
  expect(wrongKey).toMatchObject({ code: 1, stderr: expect.stringContaining("status 401: ") });
  const nobody = await rwkv(["chat", "--url", "127.0.0.1:1"], "");
  expect(nobody).toMatchObject({ code: 1, stderr: expect.stringContaining("cannot be reached (") });
  const noUrl = await rwkv(["chat", "--url", "ftp://x"], "");
  expect(noUrl).toMatchObject({ code: 1, stderr: expect.stringContaining("--url: expected the address of a server") });
  const here = await rwkv(["chat", "--url", tales.url, "--dtype", "q8"], "");
  expect(here).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("--dtype is about a model that is loaded here"),
  });
  const refused = await rwkv(["chat", "--url", tales.url, "--api-key", "secret", "-n", "99999"], "Hi\n/save x\n/ask\n");
  expect(refused.code).toBe(0);
  expect(refused.stderr).toContain("status 400: max_tokens: expected at most 16384");
  expect(refused.stderr).toContain("/save needs the model here");
  expect(refused.stderr).toContain("/ask needs a question");
  const broken = await answering(piece({ content: "Ye" }), "data: {oh\n\n");
  expect((await rwkv(["chat", "--url", broken], "Hi\n")).stderr).toContain("the answer broke off");
  const failing = await answering({ error: { message: "the reader is tired" } });
  expect((await rwkv(["chat", "--url", failing], "Hi\n")).stderr).toContain("the server: the reader is tired");
});
