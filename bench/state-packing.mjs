// What a state takes of a server's processor on its way to a Redis and back: its copy out of the model, packing, sending, receiving, unpacking.
// Starts a redis-server of its own on this machine.
//   node bench/state-packing.mjs [version:layers x width x vocabulary] [times]
// Needs the build in dist/ and redis-server. The model has random weights.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, Service } from "../deploy/processes/service.mjs";
import { syntheticCheckpoint } from "../dist/bench/synthetic-checkpoint.js";
import { shape } from "../dist/cli/option-parsers.js";
import { loadCheckpoint } from "../dist/load.js";
import { decodeKept } from "../dist/server/storage/kept-bytes.js";
import { StateCodec } from "../dist/server/storage/redis/state-codec.js";
import { table } from "./cost-model.mjs";

const [size = "7:24x1280x65536", times = "60"] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), "rwkv-packing-"));
const port = await freePort();
const command = ["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder];
const server = new Service("redis-server", command, { line: "Ready to accept connections" });
await server.start();
const client = new Redis(port, "127.0.0.1");
const options = { dtype: "q8", threads: 1, tokenizer: "world" };
const model = await loadCheckpoint(syntheticCheckpoint(shape(size), "f32"), options);
const session = model.session();
await session.read([1, 2, 3], { keepLogits: true });

const codec = new StateCodec(model, "f32");
const [head, body] = [{ scope: "x" }, new Uint8Array(4000)];
const pack = (snapshot) => codec.encode(head, body, snapshot);
const unpack = (bytes) => codec.decode(decodeKept(bytes).state);
/** Milliseconds of the processor that each step took, all times. */
const taken = new Map();
async function step(name, work) {
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  taken.set(name, [...(taken.get(name) ?? []), (user + system) / 1000]);
  return result;
}
let bytes = 0;
/** As many as a cache would have: their memory is not free for the next one. */
const kept = [];
for (let i = 0; i < Number(times); i++) {
  const snapshot = await step("the model's copy", () => session.snapshot());
  const packed = await step("packing", async () => pack(snapshot));
  bytes = packed.length;
  await step("sending", () => client.set("state", packed));
  const received = await step("receiving", () => client.getBuffer("state"));
  kept[i % 8] = await step("unpacking", async () => unpack(received));
}
const sums = [...taken.values()].reduce((sum, all) => sum.map((value, i) => value + all[i]));
taken.set("all of it", sums);
const rows = [...taken].map(([name, all]) => {
  const mean = all.reduce((sum, one) => sum + one, 0) / all.length;
  const median = all.sort((a, b) => a - b)[Math.floor(all.length / 2)];
  return [name, ...[median, mean, (mean / bytes) * 1e6].map((value) => value.toFixed(2))];
});
console.log(`${size}: ${(bytes / 1e6).toFixed(1)} MB a state, ${times} times`);
console.log(table([["milliseconds of the processor", "median", "mean", "mean for each MB"], ...rows]));
client.disconnect();
await server.kill();
await model.dispose();
await rm(folder, { recursive: true, force: true });
