// Requests made from the server's own description of its API, right, nearly right and hostile. test/long/server.test.ts sends more.

import fc from "fast-check";
import { load, type Model } from "rwkv";
import { type App, createApp } from "rwkv/server";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiDescription, requestsTo, sendFuzzed } from "./request-fuzz.js";

let model: Model;
let app: App;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
  app = createApp(model, {
    name: "tales",
    limits: { bodyBytes: 65_536, promptTokens: 200, maxTokens: 6, concurrent: 4, keptStates: 8, keptResponses: 8 },
    stateCacheBytes: 2 ** 22,
  });
});
afterAll(async () => {
  await app.close();
  await model.dispose();
});

test("no request made from the API's description is an error of the server's, or takes a place for good", async () => {
  const description = (await (await app.fetch(new Request("http://localhost/openapi.json"))).json()) as ApiDescription;
  const statuses = new Map<number, number>();
  await fc.assert(
    fc.asyncProperty(fc.array(requestsTo(description), { minLength: 1, maxLength: 4 }), async (requests) => {
      const answers = await Promise.all(requests.map((request) => sendFuzzed(app.fetch, request)));
      for (const status of answers) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }),
    { numRuns: 150 },
  );
  for (const status of [200, 400, 404, 405, 415]) expect(statuses.get(status), `answers ${status}`).toBeGreaterThan(0);
  await expect.poll(() => app.load).toEqual({ running: 0, waiting: 0 });
  await expect.poll(() => model.scheduler.states).toBe(0);
  expect(Object.hasOwn(Object.prototype, "stream")).toBe(false);
});
