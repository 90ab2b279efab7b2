#!/usr/bin/env node
// The command line: one file a command, errors as one line.

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { RwkvError } from "../errors.js";
import { addBench } from "./bench.js";
import { addChat } from "./chat.js";
import { addConvert } from "./convert.js";
import { addGenerate } from "./generate.js";
import { addInspect } from "./inspect.js";
import { addLab } from "./lab.js";
import { addLogits } from "./logits.js";
import { addPerplexity } from "./perplexity.js";
import { addServe } from "./serve.js";
import { note } from "./terminal.js";
import { addTokenize } from "./tokenize.js";
import { addTrain } from "./train.js";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const program = new Command("rwkv")
  .description("The RWKV language model: run PyTorch and safetensors checkpoints as they are.")
  .version(version)
  .enablePositionalOptions() // a command may have a --version of its own: that of RWKV
  .showHelpAfterError("(add --help for more)");
for (const add of [
  addGenerate,
  addChat,
  addServe,
  addInspect,
  addLogits,
  addTokenize,
  addPerplexity,
  addConvert,
  addTrain,
  addBench,
  addLab,
])
  add(program);
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
// Commands that can stop gently add their own handler; for the others, exit handlers remove unfinished files.
process.on("SIGINT", () => {
  if (process.listenerCount("SIGINT") === 1) process.exit(130);
});

try {
  await program.parseAsync();
} catch (error) {
  if (process.argv.includes("--verbose")) console.error(error);
  else if (error instanceof RwkvError) note(`error: ${error.message}`);
  else note(`error: ${(error as Error).message} (--verbose shows more)`);
  process.exitCode = 1;
}
