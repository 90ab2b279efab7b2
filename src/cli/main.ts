#!/usr/bin/env node
// The command line: one file a command, errors as one line.

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { RwkvError } from "../errors.js";
import { note } from "./terminal.js";

/**
 * What adds each command, in the order of the help. Only the file of the one that was asked for is read: reading all takes longer
 * than many commands run.
 */
const commands: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  generate: async () => (await import("./generate.js")).addGenerate,
  chat: async () => (await import("./chat.js")).addChat,
  serve: async () => (await import("./serve.js")).addServe,
  batch: async () => (await import("./batch.js")).addBatch,
  worker: async () => (await import("./worker.js")).addWorker,
  pull: async () => (await import("./pull.js")).addPull,
  models: async () => (await import("./models.js")).addModels,
  inspect: async () => (await import("./inspect.js")).addInspect,
  logits: async () => (await import("./logits.js")).addLogits,
  tokenize: async () => (await import("./tokenize.js")).addTokenize,
  perplexity: async () => (await import("./perplexity.js")).addPerplexity,
  eval: async () => (await import("./eval.js")).addEval,
  convert: async () => (await import("./convert.js")).addConvert,
  train: async () => (await import("./train.js")).addTrain,
  bench: async () => (await import("./bench.js")).addBench,
  lab: async () => (await import("./lab.js")).addLab,
};

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const program = new Command("rwkv")
  .description("The RWKV language model: run PyTorch and safetensors checkpoints as they are.")
  .version(version)
  .enablePositionalOptions() // a command may have a --version of its own: that of RWKV
  .showHelpAfterError("(add --help for more)");
const asked = Object.entries(commands).filter(([name]) => name === process.argv[2]);
// All of them for the help, and to suggest a name.
const wanted = asked.length > 0 ? asked : Object.entries(commands);
for (const add of await Promise.all(wanted.map(([, read]) => read()))) add(program);
for (const command of program.commands) {
  for (const one of [command, ...command.commands]) one.option("--verbose", "show stack traces of errors");
}

// A reader such as `head` that closes the pipe ends the program, not an error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    if (stream === process.stdout) note(`error: standard output cannot be written (${error.code})`);
    process.exit(1);
  });
}
try {
  await program.parseAsync();
} catch (error) {
  if (process.argv.includes("--verbose")) console.error(error);
  else if (error instanceof RwkvError) note(`error: ${error.message}`);
  else note(`error: ${(error as Error).message} (--verbose shows more)`);
  process.exitCode = 1;
}
