// rwkv logits: the model's raw output for given tokens, for comparison with other implementations.

import { type Command, Option } from "commander";
import { writeFileAtomically } from "../platform/node/file-writer.js";
import { addModelOptions, loadModel, type ModelOptions } from "./model-options.js";
import { tokenIds } from "./option-parsers.js";

interface LogitsOptions extends ModelOptions {
  tokens: number[];
  all?: boolean;
  mode: "serial" | "sequence";
  out: string;
}

/** Tokens whose logits are held in memory at once. */
const piece = 64;

export function addLogits(program: Command): void {
  const command = program
    .command("logits")
    .description("write logits as raw little-endian float32")
    .requiredOption("--tokens <ids>", "token ids, separated by commas", tokenIds)
    .requiredOption("--out <file>", "file to write: [vocabulary] floats, with --all [tokens, vocabulary]")
    .option("--all", "logits after every token, not only after the last")
    .addOption(
      new Option("--mode <mode>", "one token at a time, or many at once")
        .choices(["serial", "sequence"])
        .default("sequence"),
    );
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv logits --tokens 34,105,110 --out logits.f32
  $ rwkv logits --model m.pth --tokens 1,2,3 --all --mode serial --backend reference --out all.f32`,
    )
    .action(logits);
}

async function logits(options: LogitsOptions): Promise<void> {
  const model = await loadModel(options);
  try {
    const { tokens } = options;
    const state = model.createState();
    const step = options.mode === "serial" ? 1 : piece;
    await writeFileAtomically(options.out, async (file) => {
      for (let at = 0; at < tokens.length; at += step) {
        const part = tokens.slice(at, at + step);
        const wanted = options.all ? "all" : at + step >= tokens.length ? "last" : "none";
        const [rows] = await model.forward([{ state, tokens: part, logits: wanted }]);
        await file.append(new Uint8Array((rows as Float32Array).buffer));
      }
    });
  } finally {
    await model.dispose();
  }
}
