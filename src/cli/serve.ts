// rwkv serve: a model behind OpenAI's API.

import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { RwkvError } from "../errors.js";
import type { Model } from "../generation/model.js";
import type {
  AppOptions,
  BatchEnding,
  BatchQueue,
  Listening,
  ListenOptions,
  RequestRecord,
  StateStorage,
} from "../server/index.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import { openInBrowser } from "./open-in-browser.js";
import {
  byteCount,
  number,
  queueNameOption,
  queueOption,
  shardLinesOption,
  stateOption,
  wholeNumber,
} from "./option-parsers.js";
import { StatusLine } from "./status-line.js";
import { note } from "./terminal.js";

interface ServeOptions extends ModelOptions {
  host: string;
  port: number;
  name?: string;
  alias?: string[];
  state?: string;
  apiKey?: string[];
  apiKeyFile?: string;
  allowedHost?: string[];
  corsOrigin?: string[];
  tlsCert?: string;
  tlsKey?: string;
  stateCache: number;
  stateDir?: string;
  stateDirSize: number;
  stateStore?: string;
  stateStoreSize: number;
  stateStoreTtl: number;
  stateStoreType: "f32" | "f16";
  stateStoreTimeout: number;
  batchDir?: string;
  batchDirSize: number;
  queue?: string;
  queueName: string;
  shardLines: number;
  maxFile: number;
  maxFiles: number;
  maxBatches: number;
  maxStates: number;
  maxStateBytes: number;
  maxResponses: number;
  maxResponseBytes: number;
  responseTtl: number;
  maxConcurrent: number;
  maxWaiting: number;
  maxBody: number;
  maxPromptTokens: number;
  maxTokens: number;
  maxConnections: number;
  requestTimeout: number;
  stalledTimeout: number;
  headerTimeout: number;
  idleTimeout: number;
  drain: number;
  log: "none" | "errors" | "requests";
  open?: boolean;
}

const collect = (text: string, all: string[] = []) => [...all, text];

export function addServe(program: Command): void {
  const command = program
    .command("serve")
    .description("serve a model behind OpenAI's API")
    .option("--host <address>", "address to listen on; 0.0.0.0 is all of this machine's", "127.0.0.1")
    .option("--port <n>", "port to listen on; 0 is any that is free", wholeNumber(0, 65_535), 8080)
    .option("--name <name>", "the model's name in the API (default: that of its file)")
    .option("--alias <name>", "a further name, for clients that insist on one; can be given several times", collect)
    .option("--api-key <key>", "a key that requests must bring; can be given several times", collect)
    .option("--api-key-file <path>", "a file with such keys, one a line")
    .option(
      "--cors-origin <origin>",
      'an origin whose pages may call the API, or "*"; can be given several times',
      collect,
    )
    .option(
      "--allowed-host <name>",
      "a name by which clients may call a server without keys on 127.0.0.1, or *; can be given several times",
      collect,
    )
    .option("--tls-cert <path>", "certificate (PEM), for HTTPS")
    .option("--tls-key <path>", "its key (PEM)")
    .option(
      "--state-cache <bytes>",
      "memory for states of texts that were read, as 1GiB; 0 keeps none",
      byteCount,
      2 ** 30,
    )
    .option("--state-dir <path>", "a folder in which states outlive the server; it is made where there is none")
    .option("--state-dir-size <bytes>", "what the folder may take", byteCount, 10 * 2 ** 30)
    .addOption(
      new Option(
        "--state-store <url>",
        "a Redis in which several servers share states, as redis://host:6379/0; needs the package ioredis",
      ).env("RWKV_STATE_STORE"),
    )
    .option("--state-store-size <bytes>", "what states of prompts may take there", byteCount, 2 ** 30)
    .option(
      "--state-store-ttl <s>",
      "seconds after which one is gone that nobody used",
      wholeNumber(1, 2 ** 31),
      86_400,
    )
    .addOption(
      new Option(
        "--state-store-type <type>",
        "how states are kept there; f16 is half as large and not the same to the bit",
      )
        .choices(["f32", "f16"])
        .default("f32"),
    )
    .option(
      "--state-store-timeout <ms>",
      "milliseconds that it may take for a question; one that takes longer is not waited for",
      number(1, 60_000),
      250,
    )
    .option("--batch-dir <path>", "a folder for files and batches of clients, /v1/files and /v1/batches")
    .option("--batch-dir-size <bytes>", "what files may take there", byteCount, 10 * 2 ** 30)
    .addOption(
      queueOption(
        "have batches carried out by rwkv worker on any machine, by way of this Redis; needs the packages bullmq and ioredis",
      ),
    )
    .addOption(queueNameOption())
    .addOption(shardLinesOption())
    .option("--max-file <bytes>", "bytes of a file of requests", byteCount, 64 * 2 ** 20)
    .option(
      "--max-files <n>",
      "files that a key may keep at /v1/files, what its batches wrote included",
      wholeNumber(0, 2 ** 30),
      1000,
    )
    .option("--max-batches <n>", "batches of a key; the oldest go that have ended", wholeNumber(0, 2 ** 30), 1000)
    .option("--max-states <n>", "states that a key may keep at /v1/states", wholeNumber(0, 2 ** 30), 256)
    .option("--max-state-bytes <bytes>", "what all of them may take", byteCount, 2 ** 30)
    .option(
      "--max-responses <n>",
      "responses of a key that can be continued; the oldest go",
      wholeNumber(0, 2 ** 30),
      256,
    )
    .option("--max-response-bytes <bytes>", "what all of them may take", byteCount, 2 ** 30)
    .option("--response-ttl <s>", "seconds after which a response is gone", number(0.001, 2 ** 20), 86_400)
    .option("--max-concurrent <n>", "texts that are read or written at once", wholeNumber(1, 65_536), 32)
    .option(
      "--max-waiting <n>",
      "requests that wait for a place; further ones are refused (429)",
      wholeNumber(0, 16_384),
      256,
    )
    .option("--max-body <bytes>", "bytes of a request's body", byteCount, 8 * 2 ** 20)
    .option("--max-prompt-tokens <n>", "tokens of a prompt", wholeNumber(1, 2 ** 30), 131_072)
    .option("--max-tokens <n>", "tokens that a request may ask for", wholeNumber(1, 2 ** 30), 16_384)
    .option("--max-connections <n>", "connections at once", wholeNumber(1, 65_536), 2048)
    .option(
      "--request-timeout <s>",
      "seconds of a request; its answer then ends where it is",
      number(0.001, 2 ** 20),
      600,
    )
    .option(
      "--stalled-timeout <s>",
      "seconds after which a reader that takes nothing is given up",
      number(0.001, 2 ** 20),
      60,
    )
    .option("--header-timeout <s>", "seconds in which a request's headers must be there", number(0.001, 2 ** 20), 20)
    .option(
      "--idle-timeout <s>",
      "seconds for which a connection without a request is kept",
      number(0.001, 2 ** 20),
      30,
    )
    .option("--drain <s>", "seconds that answers may take to end, when the server is asked to", number(0, 2 ** 20), 30)
    .addOption(stateOption())
    .addOption(
      new Option("--log <what>", "JSON lines on stdout; never prompts or answers")
        .choices(["none", "errors", "requests"])
        .default("errors"),
    )
    .option("--open", "open the playground, a page to try the model in");
  addModelOptions(command)
    .addHelpText(
      "after",
      `
The first SIGTERM or Ctrl-C lets answers end (--drain); the second ends them at once.

Examples:
  $ rwkv serve
  $ rwkv serve --model RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth --port 8080 --state-cache 4GiB
  $ rwkv serve --state-dir ~/.cache/rwkv-states --state-dir-size 20GiB
  $ rwkv serve --state-store redis://10.0.0.5:6379/0 --api-key-file keys.txt
  $ rwkv serve --batch-dir /srv/batches --queue redis://10.0.0.5:6379/1 --api-key-file keys.txt
  $ rwkv serve --model model.gguf --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem`,
    )
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  if ((options.tlsCert === undefined) !== (options.tlsKey === undefined)) {
    throw new RwkvError("--tls-cert and --tls-key belong together: give both, or neither");
  }
  if (options.stateDir !== undefined && options.stateStore !== undefined) {
    throw new RwkvError("--state-dir and --state-store are two places for the same states: give one of them");
  }
  if (options.queue !== undefined && options.batchDir === undefined) {
    throw new RwkvError(
      "--queue (or the variable RWKV_QUEUE) carries out batches, which need a folder for their files: give --batch-dir, too",
    );
  }
  const apiKeys = [...(options.apiKey ?? []), ...(await keysIn(options.apiKeyFile))];
  // The commands that need no server load nothing of one.
  const { createApp, listen, openBatchDirectory } = await import("../server/index.js");
  const tls = await tlsOf(options);
  const model = await loadModel(options, { states: options.maxConcurrent * 2 + 16 });
  let batchQueue: BatchQueue | undefined;
  try {
    const { log, logBatch, status } = await serverLog(options);
    const { batchDir, batchDirSize } = options;
    const batches = batchDir === undefined ? undefined : await openBatchDirectory(batchDir, { bytes: batchDirSize });
    batchQueue = await queueOf(options);
    const storage = await storageOf(options, model);
    const app = createApp(model, {
      ...(await appOptions(options, model)),
      ...(storage && { storage }),
      ...(batches && { batches }),
      ...(batchQueue && { batchQueue }),
      apiKeys,
      onRequest: log,
      onBatch: logBatch,
    });
    const server = await listen(app, listenOptions(options, tls)).catch(async (error) => {
      await app.close(); // batches and connections would go on
      throw error;
    });
    note(describeModel(model));
    introduce(server, app.modelName, apiKeys.length > 0);
    if (batchQueue) note(`batches: carried out by rwkv worker --queue-name ${options.queueName} with the same --queue`);
    if (options.open) openInBrowser(server.url);
    const timer = setInterval(() => status(app.load), 200);
    await untilAskedToEnd(server, options.drain);
    clearInterval(timer);
  } finally {
    await batchQueue?.close();
    await model.dispose();
  }
}

/** The workers that carry out batches. */
async function queueOf({ queue, queueName: name, shardLines }: ServeOptions): Promise<BatchQueue | undefined> {
  if (queue === undefined) return undefined;
  const { openBatchQueue } = await import("../server/index.js");
  return openBatchQueue(queue, { name, shardLines, onWarning: (message) => note(`warning: ${message}`) });
}

/** Where states are beyond the server's memory. */
async function storageOf(options: ServeOptions, model: Model): Promise<StateStorage | undefined> {
  const { stateDir, stateDirSize, stateStore, stateStoreSize, stateStoreTtl, stateStoreType, stateStoreTimeout } =
    options;
  const { openStateDirectory, openStateStore } = await import("../server/index.js");
  if (stateDir !== undefined) return openStateDirectory(model, stateDir, { bytes: stateDirSize });
  if (stateStore === undefined) return undefined;
  return openStateStore(model, stateStore, {
    bytes: stateStoreSize,
    seconds: stateStoreTtl,
    type: stateStoreType,
    milliseconds: stateStoreTimeout,
    onWarning: (message) => note(`warning: ${message}`),
  });
}

async function appOptions(options: ServeOptions, model: Model): Promise<AppOptions> {
  const { name = options.model === undefined ? "rwkv-tales" : undefined } = options;
  return {
    ...(name !== undefined && { name }),
    ...(options.alias && { aliases: options.alias }),
    ...(options.state !== undefined && { state: await model.readState(options.state) }),
    ...(options.corsOrigin && { corsOrigins: options.corsOrigin }),
    stateCacheBytes: options.stateCache,
    limits: {
      concurrent: options.maxConcurrent,
      waiting: options.maxWaiting,
      bodyBytes: options.maxBody,
      promptTokens: options.maxPromptTokens,
      maxTokens: options.maxTokens,
      requestSeconds: options.requestTimeout,
      stalledSeconds: options.stalledTimeout,
      keptStates: options.maxStates,
      keptStateBytes: options.maxStateBytes,
      keptResponses: options.maxResponses,
      keptResponseBytes: options.maxResponseBytes,
      responseSeconds: options.responseTtl,
      fileBytes: options.maxFile,
      keptFiles: options.maxFiles,
      keptBatches: options.maxBatches,
    },
  };
}

function listenOptions(options: ServeOptions, tls: ListenOptions["tls"]): ListenOptions {
  return {
    host: options.host,
    port: options.port,
    ...(tls && { tls }),
    ...(options.allowedHost && { allowedHosts: options.allowedHost }),
    connections: options.maxConnections,
    headerSeconds: options.headerTimeout,
    idleSeconds: options.idleTimeout,
  };
}

/** Three lines how to call the server. */
function introduce({ url }: Listening, model: string, needsKey: boolean): void {
  const header = needsKey ? " -H 'Authorization: Bearer KEY'" : "";
  note(`serving ${model} at ${url}`);
  note(`  curl ${url}/v1/chat/completions${header} -H 'Content-Type: application/json' \\`);
  note(`    -d '{"messages": [{"role": "user", "content": "Hello"}]}'`);
  note(`  new OpenAI({ baseURL: "${url}/v1", apiKey: ${needsKey ? "KEY" : '"none"'} })   // the openai package`);
}

/** Where the records of requests and batches go, and a line of the terminal that shows what is in progress. */
async function serverLog({ log }: ServeOptions) {
  const { pino } = await import("pino");
  const logger = pino({ level: log === "none" ? "silent" : log === "errors" ? "error" : "info", base: null });
  const line = new StatusLine();
  let answered = 0;
  let written = 0;
  return {
    log: ({ error, ...record }: RequestRecord) => {
      answered++;
      written += record.generatedTokens ?? 0;
      line.clear();
      if (error !== undefined) logger.error({ ...record, err: error }, "request failed");
      else logger.info(record, "request");
    },
    logBatch: ({ error, ...record }: BatchEnding) => {
      line.clear();
      if (error !== undefined) logger.error({ ...record, err: error }, "batch failed");
      else logger.info(record, "batch");
    },
    status: ({ running, waiting }: { running: number; waiting: number }) =>
      line.draw(`${running} in progress, ${waiting} waiting, ${answered} answered, ${written} tokens written`),
  };
}

/** Resolves when the server has ended: gently after a first signal, at once after a second. */
function untilAskedToEnd(server: Listening, drainSeconds: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let isEnding = false;
    const end = () => {
      if (isEnding) process.exit(1);
      isEnding = true;
      note("ending: answers in progress may take another moment (once more ends them at once)");
      server.close(drainSeconds * 1000).then(resolve, reject);
    };
    process.on("SIGINT", end);
    process.on("SIGTERM", end);
  });
}

async function keysIn(path: string | undefined): Promise<string[]> {
  if (path === undefined) return [];
  const text = await readFile(path, "utf8").catch((cause) => {
    throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
  });
  const keys = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length === 0) throw new RwkvError(`${path}: expected a key on a line, found none`);
  return keys;
}

async function tlsOf({ tlsCert, tlsKey }: ServeOptions): Promise<ListenOptions["tls"]> {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  const read = (path: string) =>
    readFile(path).catch((cause) => {
      throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
    });
  return { cert: await read(tlsCert), key: await read(tlsKey) };
}
