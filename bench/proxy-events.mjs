// What of a processor nginx takes for a token that is streamed through it: a server that computes nothing sends events of a token's size, one
// every 10 ms to each of some clients, through the balancer of deploy/.
//   node bench/proxy-events.mjs [clients, by default 64] [events of each, by default 300]
// Needs nginx, and Linux, which says what a process has taken.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setInterval as every } from "node:timers/promises";
import { nginxConfiguration } from "../deploy/processes/plan.mjs";
import { freePort, Service } from "../deploy/processes/service.mjs";

const [clients, events] = [Number(process.argv[2] ?? 64), Number(process.argv[3] ?? 300)];
const event = `data: ${JSON.stringify({ id: "chatcmpl-0123456789abcdef", choices: [{ index: 0, delta: { content: " word" } }] })}\n\n`;

const server = createServer(async (_, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  let sent = 0;
  for await (const _ of every(10)) {
    response.write(event);
    if (++sent === events) break;
  }
  response.end();
}).listen(0, "127.0.0.1");
await once(server, "listening");

const folder = await mkdtemp(join(tmpdir(), "rwkv-nginx-"));
const [port, file] = [await freePort(), join(folder, "nginx.conf")];
const servers = [`127.0.0.1:${server.address().port}`];
await writeFile(file, await nginxConfiguration({ listen: `127.0.0.1:${port}`, servers, folder }));
const nginx = new Service("nginx", ["nginx", "-e", join(folder, "nginx.log"), "-c", file]);
await nginx.start();

const ticks = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
/** Seconds of a processor that nginx' worker has taken. */
async function taken() {
  const worker = (await readFile(`/proc/${nginx.child.pid}/task/${nginx.child.pid}/children`, "utf8")).trim();
  const fields = (await readFile(`/proc/${worker}/stat`, "utf8")).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}
const url = `http://127.0.0.1:${port}/`;
for (let tries = 0; ; tries++) {
  const isThere = await fetch(`${url}metrics`).then(
    () => true,
    (error) => {
      if (tries > 1000) throw error;
    },
  );
  if (isThere) break;
}
const before = await taken();
const read = await Promise.all(Array.from({ length: clients }, async () => (await (await fetch(url)).text()).length));
if (read.some((length) => length !== event.length * events)) throw new Error("a stream was not whole");
const each = ((await taken()) - before) / (clients * events);
console.log(`${clients} clients, ${events} events each: ${(each * 1e6).toFixed(0)} µs of nginx for an event`);
await nginx.kill("SIGTERM");
server.close();
await rm(folder, { recursive: true, force: true });
