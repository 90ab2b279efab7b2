// How many bytes of states a Redis gives and takes a second, for the sizes of states of models from 0.1B to 13.3B, by one client after the
// other and by four at once, and what of it is Redis' own time. Starts a redis-server of its own on this machine.
//   node bench/redis-bandwidth.mjs [seconds a figure, by default 1.5]
// Needs redis-server.

import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, Service } from "../deploy/processes/service.mjs";
import { table } from "./cost-model.mjs";

const seconds = Number(process.argv[2] ?? 1.5);
const sizes = [0.5, 2.7, 6.8, 13.2, 21.9, 34.9, 66.2];
const folder = await mkdtemp(join(tmpdir(), "rwkv-redis-"));
const port = await freePort();
const command = ["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder];
const server = new Service("redis-server", command, { line: "Ready to accept connections" });
await server.start();
const clients = Array.from({ length: 4 }, () => new Redis(port, "127.0.0.1"));

/** Seconds of a processor that Redis has taken. */
async function taken() {
  const info = await clients[0].info("cpu");
  return ["user", "sys"].reduce((sum, kind) => sum + Number(new RegExp(`used_cpu_${kind}:(\\S+)`).exec(info)[1]), 0);
}

/** Does something again and again, by some clients. @returns megabytes a second, and those for each second of Redis' own */
async function measured(count, megabytes, once) {
  const [own, started] = [await taken(), performance.now()];
  let times = 0;
  await Promise.all(
    clients.slice(0, count).map(async (client, i) => {
      do {
        await once(client, i);
        times++;
      } while (performance.now() - started < seconds * 1000);
    }),
  );
  const total = times * megabytes;
  return [total / ((performance.now() - started) / 1000), total / ((await taken()) - own)].map(Math.round);
}

const rows = [
  [
    "MB",
    "SET, 1 client",
    "4 clients",
    "a second of Redis' own",
    "GET, 1 client",
    "4 clients",
    "a second of Redis' own",
  ],
];
for (const size of sizes) {
  const value = randomBytes(Math.round(size * 1e6));
  const set = (client, i) => client.set(`state-${i}`, value);
  const get = (client, i) => client.getBuffer(`state-${i}`);
  for (const [i, client] of clients.entries()) await set(client, i);
  const [[alone], [sets, ownSets]] = [await measured(1, size, set), await measured(4, size, set)];
  const [[aloneGet], [gets, ownGets]] = [await measured(1, size, get), await measured(4, size, get)];
  rows.push([size, alone, sets, ownSets, aloneGet, gets, ownGets]);
}
console.log("MB/s\n");
console.log(table(rows));
for (const client of clients) client.disconnect();
await server.kill("SIGTERM");
await rm(folder, { recursive: true, force: true });
