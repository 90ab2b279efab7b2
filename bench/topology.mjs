// Several servers as they run behind a balancer, as plain processes of this machine: a Redis for states, replicas of `rwkv serve`, and
// nginx before them, which takes turns on one port and keeps conversations together on another (a consistent hash of the header
// X-Conversation). Needs redis-server and nginx, as Debian's packages have them, and the build in dist/.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

/** A port that was free a moment ago. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A process that can be killed and started again. */
class Service {
  /** @param line what it prints when it is ready */
  constructor(name, command, args, line) {
    Object.assign(this, { name, command, args, line });
  }

  async start() {
    const child = spawn(this.command, this.args, { stdio: ["ignore", "pipe", "pipe"] });
    this.child = child;
    this.exited = new Promise((resolve) => child.once("exit", resolve));
    this.exited.then(() => {
      this.isRunning = false;
    });
    this.isRunning = true;
    let output = "";
    await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (text) => {
          output = (output + text).slice(-10_000);
          if (this.line === undefined || output.includes(this.line)) resolve();
        });
      }
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`${this.name} has ended (${code ?? signal}): ${output}`)));
      if (this.line === undefined) resolve();
    });
  }

  signal(name) {
    this.child.kill(name);
  }

  async kill(name = "SIGKILL") {
    this.child.kill(name);
    await this.exited;
  }
}

function nginxConfiguration(folder, { turnsPort, hashPort, ports }) {
  const servers = ports.map((port) => `    server 127.0.0.1:${port} max_fails=1 fail_timeout=1s;`).join("\n");
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${folder}/${name};`)
    .join("\n");
  const server = (port, upstream) => `  server {
    listen 127.0.0.1:${port};
    client_max_body_size 8m;
    location / {
      proxy_pass http://${upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host localhost;
      proxy_buffering off;
      proxy_read_timeout 620s;
      proxy_next_upstream error; # another replica where one cannot be reached; no request is carried out twice
    }
  }`;
  return `daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log ${folder}/nginx.log warn;
events { worker_connections 1024; }
http {
  access_log off;
${paths}
  upstream turns {
${servers}
  }
  upstream together {
    hash $http_x_conversation consistent;
${servers}
  }
${server(turnsPort, "turns")}
${server(hashPort, "together")}
}
`;
}

/**
 * Starts all of it. It ends with this process at the latest.
 *
 * @param options.replicas how many servers
 * @param options.serve further options of `rwkv serve`
 * @param options.redis further options of redis-server
 */
export async function startTopology({ replicas = 3, serve = [], redis = [] } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "rwkv-topology-"));
  const [redisPort, turnsPort, hashPort] = [await freePort(), await freePort(), await freePort()];
  const ports = [];
  for (let i = 0; i < replicas; i++) ports.push(await freePort());
  const services = [
    new Service(
      "redis-server",
      "redis-server",
      ["--port", String(redisPort), "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...redis],
      "Ready to accept connections",
    ),
    ...ports.map(
      (port, i) =>
        new Service(
          `replica ${i + 1}`,
          process.execPath,
          [
            ...[program, "serve", "--port", String(port), "--threads", "1", "--log", "none"],
            ...["--state-store", `redis://127.0.0.1:${redisPort}/0`, ...serve],
          ],
          "serving ",
        ),
    ),
  ];
  await writeFile(join(folder, "nginx.conf"), nginxConfiguration(folder, { turnsPort, hashPort, ports }));
  const nginx = new Service("nginx", "nginx", ["-e", join(folder, "nginx.log"), "-c", join(folder, "nginx.conf")]);
  const killAll = () => {
    for (const { child } of [nginx, ...services]) child?.kill("SIGKILL");
  };
  process.on("exit", killAll);
  for (const service of services) await service.start();
  await nginx.start();
  const [redisService, ...servers] = services;
  return {
    folder,
    redis: redisService,
    redisUrl: `redis://127.0.0.1:${redisPort}/0`,
    replicas: servers,
    replicaUrls: ports.map((port) => `http://127.0.0.1:${port}`),
    /** Through nginx: replicas take turns, or keep what has the same header X-Conversation. */
    turnsUrl: `http://127.0.0.1:${turnsPort}`,
    hashUrl: `http://127.0.0.1:${hashPort}`,
    async stop() {
      await nginx.kill("SIGTERM");
      killAll();
      await Promise.all(services.map(({ exited }) => exited));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
