// Starts the topology of compose.yaml as programs of this machine, with the commands that stand there: a Redis for states, one for the queue,
// servers, workers, nginx before the servers, and Prometheus. Needs redis-server, nginx and (unless it is left out) prometheus, as Debian's
// packages have them, and the build in dist/. Grafana is in no package of Debian's, and not started.
//   node deploy/processes/start.mjs [--servers 3] [--workers 1] [--model MODEL] [--port 8080] [--without-prometheus]

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { composeServices, nginxConfiguration, prometheusConfiguration, replaced } from "./plan.mjs";
import { freePort, Service } from "./service.mjs";

const program = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const modelOfThePackage = fileURLToPath(new URL("../../embedded/model.safetensors", import.meta.url));
const rulesFile = fileURLToPath(new URL("../prometheus/rules.yml", import.meta.url));

/**
 * Starts all of it. It ends with this process at the latest.
 *
 * @param options.servers how many servers, @param options.workers how many workers; by default as many as compose.yaml says
 * @param options.model by default the one in the package
 * @param options.port of nginx; by default one that is free
 * @param options.keys API keys; Prometheus has the first
 * @param options.serve, options.work, options.redis further arguments of servers, of workers, and of the Redis for states
 * @param options.prometheus seconds between two looks of Prometheus, 0 for none of it; by default as its configuration says
 */
export async function startTopology(options = {}) {
  const { model = modelOfThePackage, keys = ["key"], serve = [], work = [], redis = [], prometheus } = options;
  const compose = await composeServices({ MODEL: model });
  const { servers = compose.server.deploy.replicas, workers = compose.worker.deploy.replicas } = options;
  const folder = await mkdtemp(join(tmpdir(), "rwkv-topology-"));
  for (const name of ["states", "queue", "batches", "prometheus"]) await mkdir(join(folder, name));
  const [apiKeys, metricsKey] = [join(folder, "api-keys"), join(folder, "metrics-key")];
  await writeFile(apiKeys, keys.join("\n"), { mode: 0o600 });
  await writeFile(metricsKey, keys[0], { mode: 0o600 });

  const port = { states: await freePort(), queue: await freePort(), nginx: options.port ?? (await freePort()) };
  const addresses = [];
  for (let i = 0; i < servers; i++) addresses.push(`127.0.0.1:${await freePort()}`);
  const places = {
    "states:6379": `127.0.0.1:${port.states}`,
    "queue:6379": `127.0.0.1:${port.queue}`,
    "/run/secrets/api-keys": apiKeys,
    "/batches": join(folder, "batches"),
  };
  const here = (text) => replaced(text, places);
  const redisOf = (name, more = []) => {
    const address = ["--port", String(port[name]), "--bind", "127.0.0.1", "--dir", join(folder, name), "--save", ""];
    return new Service(name, [...compose[name].command, ...address, ...more], { line: "Ready to accept connections" });
  };
  const rwkv = (name, { command, environment = {} }, more, line) =>
    new Service(name, [process.execPath, program, ...command.map(here), ...more], {
      line,
      environment: Object.fromEntries(Object.entries(environment).map(([key, value]) => [key, here(value)])),
    });
  const of = (count, make) => Array.from({ length: count }, (_, i) => make(i));
  const all = {
    states: redisOf("states", redis),
    queue: redisOf("queue"),
    servers: of(servers, (i) => {
      const [host, own] = addresses[i].split(":");
      return rwkv(`server ${i + 1}`, compose.server, ["--host", host, "--port", own, ...serve], "serving ");
    }),
    workers: of(workers, (i) => rwkv(`worker ${i + 1}`, compose.worker, work, "taking shards ")),
    nginx: await nginxOf(folder, port.nginx, addresses),
    prometheus: undefined,
  };
  let prometheusUrl;
  if (prometheus !== 0) {
    const own = await freePort();
    const file = join(folder, "prometheus.yml");
    const about = { servers: addresses, keyFile: metricsKey, rulesFile, scrapeSeconds: prometheus };
    await writeFile(file, await prometheusConfiguration(about));
    const storage = `--storage.tsdb.path=${join(folder, "prometheus")}`;
    const command = ["prometheus", `--config.file=${file}`, storage, `--web.listen-address=127.0.0.1:${own}`];
    all.prometheus = new Service("prometheus", command, { line: "Server is ready to receive web requests" });
    prometheusUrl = `http://127.0.0.1:${own}`;
  }
  const services = Object.values(all)
    .flat()
    .filter((service) => service !== undefined);
  const stop = async () => {
    await Promise.all(services.map((service) => service.kill(service === all.nginx ? "SIGTERM" : "SIGKILL")));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all([all.states.start(), all.queue.start()]);
    await Promise.all(services.filter(({ child }) => child === undefined).map((service) => service.start()));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    ...all,
    folder,
    statesUrl: `redis://${places["states:6379"]}/0`,
    queueUrl: `redis://${places["queue:6379"]}/0`,
    serverUrls: addresses.map((address) => `http://${address}`),
    /** Through nginx: servers take turns, or keep what has the same header X-Conversation. */
    url: `http://127.0.0.1:${port.nginx}`,
    prometheusUrl,
    stop,
  };
}

async function nginxOf(folder, port, servers) {
  const file = join(folder, "nginx.conf");
  await writeFile(file, await nginxConfiguration({ listen: `127.0.0.1:${port}`, servers, folder }));
  return new Service("nginx", ["nginx", "-e", join(folder, "nginx.log"), "-c", file]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      servers: { type: "string" },
      workers: { type: "string" },
      model: { type: "string" },
      port: { type: "string", default: "8080" },
      "without-prometheus": { type: "boolean", default: false },
    },
  });
  const { servers, workers, model, port } = values;
  const topology = await startTopology({
    ...(servers !== undefined && { servers: Number(servers) }),
    ...(workers !== undefined && { workers: Number(workers) }),
    ...(model !== undefined && { model }),
    ...(values["without-prometheus"] && { prometheus: 0 }),
    port: Number(port),
  });
  console.log(`servers       ${topology.url} (API key "key"); ${topology.serverUrls.join(" ")}`);
  console.log(`queue         ${topology.queueUrl}, for rwkv batch --queue`);
  if (topology.prometheusUrl) console.log(`Prometheus    ${topology.prometheusUrl}`);
  console.log("Ctrl-C ends all of it.");
  const end = () => topology.stop().then(() => process.exit());
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, end);
}
