// rwkv batch: the prompts of a file, as many at once as the model is fastest with.

import type { Command } from "commander";
import type { BatchOptions, BatchProgress } from "../server/batches/run-batch.js";
import { batchApp } from "./batch-app.js";
import { duration } from "./duration.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import { byteCount, queueNameOption, shardLinesOption, stateOption, wholeNumber } from "./option-parsers.js";
import { bar, StatusLine } from "./status-line.js";
import { note } from "./terminal.js";

interface BatchCommandOptions extends ModelOptions {
  queue?: string;
  queueName: string;
  shardLines: number;
  state?: string;
  atOnce: number;
  maxTokens: number;
  seed?: number;
  stateCache: number;
  maxLine: number;
}

export function addBatch(program: Command): void {
  const command = program
    .command("batch")
    .description("carry out a file of prompts, each line of it a request, and write a line for each")
    .argument("<in.jsonl>", 'requests in the format of OpenAI\'s Batch API, or lines as {"prompt": "..."}')
    .argument("<out.jsonl>", "where the answers go, in the same order")
    .option("--at-once <n>", "lines that are carried out at once", wholeNumber(1, 4096), 64)
    .option("--max-tokens <n>", "tokens of an answer to a prompt that does not say", wholeNumber(1, 2 ** 30), 256)
    .option("--seed <n>", "seed of the first line that has none; later ones have the numbers after it", wholeNumber(0))
    .option("--state-cache <bytes>", "memory for states of beginnings that prompts share", byteCount, 2 ** 30)
    .option("--max-line <bytes>", "bytes of a line", byteCount, 8 * 2 ** 20)
    .option(
      "--queue <url>",
      "have it carried out by rwkv worker on any machine, by way of this Redis; no model is loaded here",
    )
    .addOption(queueNameOption())
    .addOption(shardLinesOption())
    .addOption(stateOption());
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Whatever ends it, the same command goes on where it was left: until all is done the answers are in out.jsonl.partial.
Ctrl-C lets the lines in progress end; the second ends at once.

Lines may be
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...], "max_tokens": 50}}
  {"prompt": "Once upon a time", "max_tokens": 50, "temperature": 0}
  {"messages": [{"role": "user", "content": "Hello"}]}

Examples:
  $ rwkv batch prompts.jsonl answers.jsonl --seed 1
  $ rwkv batch requests.jsonl answers.jsonl --model RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth --at-once 128
  $ rwkv batch prompts.jsonl answers.jsonl --queue redis://10.0.0.5:6379/1`,
    )
    .action(batch);
}

async function batch(input: string, output: string, options: BatchCommandOptions): Promise<void> {
  const { inputIdentity } = await import("../server/batches/output-file.js");
  await inputIdentity(input); // a wrong name is told before a model is loaded
  if (options.queue !== undefined) return batchByWorkers(input, output, options, options.queue);
  const { answersHere } = await import("../server/batches/run-batch.js");
  const model = await loadModel(options, { states: options.atOnce * 2 + 16 });
  try {
    const { app, identity } = await batchApp(model, options);
    note(describeModel(model));
    const { seed, maxTokens, maxLine: maxBytes, atOnce } = options;
    // There is one model, whatever lines were written for.
    const answers = answersHere(atOnce, { fetch: app.fetch, modelName: app.modelName, maxBytes, seed, maxTokens });
    await run(input, output, options, identity, answers, interrupted());
    await app.close();
  } finally {
    await model.dispose();
  }
}

/** The same with workers elsewhere. */
async function batchByWorkers(input: string, output: string, options: BatchCommandOptions, url: string): Promise<void> {
  const { Coordinator } = await import("../server/queue/coordinator.js");
  const { ShardQueue } = await import("../server/queue/shard-queue.js");
  const { queueName: name, shardLines, seed, maxTokens, maxLine: maxBytes } = options;
  const stop = interrupted();
  const queue = await ShardQueue.open(url, name);
  const coordinator = new Coordinator(queue, { shardLines, seed, maxTokens, maxBytes, stop });
  try {
    await run(
      input,
      output,
      options,
      `of the queue ${name}`,
      (lines, batch) => coordinator.answers(lines, batch),
      stop,
    );
  } finally {
    await queue.close();
  }
}

async function run(
  input: string,
  output: string,
  { seed, maxTokens, maxLine: maxBytes }: BatchCommandOptions,
  model: string,
  answers: BatchOptions["answers"],
  stop: AbortSignal,
): Promise<void> {
  const { runBatch } = await import("../server/batches/run-batch.js");
  const line = new StatusLine();
  const started = performance.now();
  const result = await runBatch({
    ...{ input, output, model, answers, maxBytes, seed, maxTokens, stop },
    onProgress: (progress) => line.draw(progressText(progress, started)),
  });
  line.clear();
  note(reportText(output, result, started));
}

function progressText(progress: BatchProgress, started: number): string {
  const { lines, bytes, allBytes, bytesBefore } = progress;
  const seconds = (performance.now() - started) / 1000;
  const share = allBytes === 0 ? 1 : bytes / allBytes;
  const done = bytes - bytesBefore;
  const left = done > 0 ? `, ${duration((seconds * (allBytes - bytes)) / done)} left` : "";
  return `${bar(share, 20)} ${Math.floor(share * 100)}% ${lines} lines, ${speedText(progress, seconds)}${left}`;
}

function speedText({ lines, before, promptTokens, generatedTokens }: BatchProgress, seconds: number): string {
  const rate = (count: number) => (count / Math.max(seconds, 0.001)).toFixed(1);
  return `${rate(lines - before)} lines/s, ${rate(promptTokens)} tokens/s read, ${rate(generatedTokens)} written`;
}

function reportText(output: string, result: BatchProgress & { readonly isComplete: boolean }, started: number): string {
  const { lines, before, failed, isComplete } = result;
  const seconds = (performance.now() - started) / 1000;
  if (isComplete && lines === 0 && result.bytesBefore === result.allBytes && result.allBytes > 0)
    return `${output} was complete already`;
  const failures = failed > 0 ? `, ${failed} of which could not be carried out (their lines say why)` : "";
  const earlier = before > 0 ? `, after ${before} before` : "";
  const speed = `in ${duration(seconds)} (${speedText(result, seconds)})`;
  const rest = isComplete ? output : `${output}.partial; the same command goes on`;
  return `${lines - before} lines${earlier}${failures}, ${speed}: ${rest}`;
}

/** Aborted by the first Ctrl-C or SIGTERM; the second ends the process. */
function interrupted(): AbortSignal {
  const stopping = new AbortController();
  const stop = () => {
    if (stopping.signal.aborted) process.exit(130);
    stopping.abort();
    note("ending: lines in progress may take another moment (once more ends them at once)");
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return stopping.signal;
}
