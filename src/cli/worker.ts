// rwkv worker: carries out batches that others put into a queue.

import type { Command } from "commander";
import { batchApp } from "./batch-app.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import { byteCount, queueNameOption, queueOption, stateOption, wholeNumber } from "./option-parsers.js";
import { StatusLine } from "./status-line.js";
import { note } from "./terminal.js";

interface WorkerCommandOptions extends ModelOptions {
  queue: string;
  queueName: string;
  state?: string;
  atOnce: number;
  stateCache: number;
  maxLine: number;
}

export function addWorker(program: Command): void {
  const command = program
    .command("worker")
    .description("carry out batches of a queue, which rwkv batch --queue and rwkv serve --queue fill")
    .addOption(
      queueOption(
        "the Redis of the queue, as redis://host:6379/0; needs the packages bullmq and ioredis",
      ).makeOptionMandatory(),
    )
    .addOption(queueNameOption())
    .option("--at-once <n>", "lines that are carried out at once", wholeNumber(1, 4096), 64)
    .option("--state-cache <bytes>", "memory for states of beginnings that prompts share", byteCount, 2 ** 30)
    .option("--max-line <bytes>", "bytes of a line", byteCount, 8 * 2 ** 20)
    .addOption(stateOption());
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Ctrl-C or SIGTERM hands back what is in progress; another worker takes it. So it does where a worker is killed.

Examples:
  $ rwkv worker --queue redis://10.0.0.5:6379/1 --model RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth
  $ rwkv batch in.jsonl out.jsonl --queue redis://10.0.0.5:6379/1        # on any machine, without a model`,
    )
    .action(work);
}

async function work(options: WorkerCommandOptions): Promise<void> {
  const { checkQueue, startWorker } = await import("../server/queue/worker.js");
  await checkQueue(options.queue);
  const shardsAtOnce = 2;
  const model = await loadModel(options, { states: options.atOnce * 2 * shardsAtOnce + 16 });
  try {
    const { app, identity } = await batchApp(model, options, shardsAtOnce);
    const line = new StatusLine();
    let [shards, done] = [0, 0];
    const worker = await startWorker({
      url: options.queue,
      name: options.queueName,
      model: identity,
      fetch: app.fetch,
      fetchFor: app.fetchFor,
      modelName: app.modelName,
      atOnce: options.atOnce,
      onShard: (lines) => {
        shards++;
        done += lines;
        line.draw(`${done} lines in ${shards} shards`);
      },
    });
    note(describeModel(model));
    note(`taking shards of the queue ${options.queueName}`);
    await untilAskedToEnd();
    line.clear();
    note("ending: what is in progress is handed back");
    await worker.close();
    await app.close();
  } finally {
    await model.dispose();
  }
}

function untilAskedToEnd(): Promise<void> {
  return new Promise((resolve) => {
    let isEnding = false;
    const end = () => {
      if (isEnding) process.exit(130);
      isEnding = true;
      resolve();
    };
    process.on("SIGINT", end);
    process.on("SIGTERM", end);
  });
}
