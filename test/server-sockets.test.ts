// What clients do to a server's connections: they vanish in the middle of anything, say nothing, read nothing, or name another host.

import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as after } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type Served, served } from "./served.js";

const endless = { prompt: "Once upon a time", max_tokens: 16_000, temperature: 1, top_p: 0.9, logit_bias: { 0: -100 } };

let tales: Served;
beforeAll(async () => {
  tales = await served(
    { limits: { concurrent: 32, stalledSeconds: 0.3 } },
    { listening: { headerSeconds: 0.5, bodySeconds: 0.5, idleSeconds: 0.5 } },
  );
});
afterAll(() => tales.close());

/** A connection to the server. It is destroyed when the test ends. */
async function connection({ server }: Served = tales): Promise<Socket> {
  const socket = connect(server.port, "127.0.0.1");
  socket.on("error", () => {}); // the server may end it at any moment
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** A request as it goes over the wire. */
function written(body: string, length = Buffer.byteLength(body)): string {
  const head = [
    "POST /v1/completions HTTP/1.1",
    "Host: localhost",
    "Content-Type: application/json",
    `Content-Length: ${length}`,
  ];
  return `${head.join("\r\n")}\r\n\r\n${body}`;
}

/** What a connection gives until it ends. */
async function allOf(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (data) => {
    text += data;
  });
  await once(socket, "close");
  return text;
}

/** Waits until nothing is in progress; the test's own time limit is the only one. */
async function untilIdle(): Promise<void> {
  while (tales.app.load.running + tales.app.load.waiting + tales.model.scheduler.states > 0) await after(5);
}

describe("clients that vanish", () => {
  const streaming = written(JSON.stringify({ ...endless, stream: true }));
  const whole = written(JSON.stringify(endless));

  test.each([
    ["within the headers", streaming.slice(0, 60)],
    ["within the body", streaming.slice(0, -30)],
    ["before the first byte of a stream", streaming],
    ["before a whole answer", whole],
    ["after a second request on the same connection", whole + streaming],
  ])("%s leave nothing behind", async (_, text) => {
    for (let i = 0; i < 8; i++) {
      const socket = await connection();
      socket.write(text);
      if (i % 2 === 1) await after(20);
      socket.resetAndDestroy();
    }
    await untilIdle();
    expect((await tales.post("/v1/completions", { prompt: "a", max_tokens: 1 })).status).toBe(200);
    const metrics = [...(await tales.metrics())];
    expect(metrics.filter(([name, value]) => /status="5/.test(name) && value > 0)).toEqual([]);
  });

  test("within a stream free their places, however far it is", async () => {
    for (let i = 0; i < 8; i++) {
      const socket = await connection();
      socket.write(streaming);
      await once(socket, "data");
      socket.resetAndDestroy();
    }
    await untilIdle();
  });
});

describe("clients that say nothing", () => {
  test.each([
    ["headers", "POST /v1/completions HTTP/1.1\r\nHost: local"],
    ["a body", written("{", 1000)],
  ])("lose their connection while %s is awaited", async (_, text) => {
    const socket = await connection();
    socket.write(text);
    expect(await allOf(socket)).toMatch(/^HTTP\/1\.1 408 /);
    await untilIdle();
  });

  test("lose it after an answer", async () => {
    const socket = await connection();
    socket.write("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect(await allOf(socket)).toMatch(/^HTTP\/1\.1 200 /);
  });
});

test("more connections than there may be are closed, and there is place again when others are", async () => {
  const few = await served({}, { listening: { connections: 2 } });
  onTestFinished(() => few.close());
  const open = () => connection(few);
  const held = [await open(), await open()];
  const health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const refused = await open();
  refused.write(health);
  expect(await allOf(refused)).toBe("");
  for (const socket of held) socket.write(health);
  const answers = await Promise.all(held.map((socket) => once(socket, "data")));
  expect(answers.every(([data]) => /^HTTP\/1\.1 200 /.test(String(data)))).toBe(true);
  for (const socket of held) socket.destroy();
  await expect
    .poll(() =>
      fetch(`${few.url}/health`).then(
        ({ status }) => status,
        () => 0,
      ),
    )
    .toBe(200);
});

test("a client that reads nothing of its connection holds no memory, and loses its place", async () => {
  const expected = await (await tales.post("/v1/completions", { prompt: "The king", seed: 3, max_tokens: 40 })).json();
  const socket = await connection();
  socket.pause();
  // The system keeps some megabytes for a connection: the prompt's log-probabilities, told once for each text, are more.
  const echo = { prompt: "Once upon a time ".repeat(200), n: 30, echo: true, logprobs: 20 };
  socket.write(written(JSON.stringify({ ...endless, ...echo, stream: true })));
  while (tales.app.load.running === 0) await after(1);
  const other = await (await tales.post("/v1/completions", { prompt: "The king", seed: 3, max_tokens: 40 })).json();
  expect(other.choices[0].text).toBe(expected.choices[0].text);
  await untilIdle();
  socket.resume();
  const text = await allOf(socket);
  expect(text.includes("[DONE]")).toBe(false);
  expect(text.match(/^data: /gm)!.length).toBeLessThan(echo.n);
});

describe("names of other hosts", () => {
  /** The status of an answer to a request that names a host. */
  async function statusFor(one: Served, host: string): Promise<number | undefined> {
    const sent = request({
      port: one.server.port,
      host: "127.0.0.1",
      path: "/v1/models",
      headers: { Host: host },
      agent: false,
    });
    const [answer] = await once(sent.end(), "response");
    answer.resume();
    return answer.statusCode;
  }

  test("are refused on a loopback address: a page may have let its name lead there", async () => {
    const statuses = ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "chat.localhost", "192.168.0.2"];
    expect(await Promise.all(statuses.map((host) => statusFor(tales, host)))).toEqual(statuses.map(() => 200));
    const others = [
      "evil.example",
      "evil.example:8080",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "notlocalhost",
    ];
    expect(await Promise.all(others.map((host) => statusFor(tales, host)))).toEqual(others.map(() => 403));
  });

  test("are taken where they were allowed, and where keys are needed", async () => {
    const named = await served({}, { listening: { allowedHosts: ["Models.example"] } });
    onTestFinished(() => named.close());
    expect(await statusFor(named, "models.example:80")).toBe(200);
    expect(await statusFor(named, "evil.example")).toBe(403);
    const any = await served({}, { listening: { allowedHosts: ["*"] } });
    onTestFinished(() => any.close());
    expect(await statusFor(any, "evil.example")).toBe(200);
    const keyed = await served({ apiKeys: ["secret"] });
    onTestFinished(() => keyed.close());
    expect(await statusFor(keyed, "models.example")).toBe(401);
  });
});
