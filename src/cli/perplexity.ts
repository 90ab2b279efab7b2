// rwkv perplexity: how well a model predicts a text.

import type { Command } from "commander";
import { RwkvError } from "../errors.js";
import type { Model } from "../generation/model.js";
import { readText } from "../platform/node/files.js";
import { negativeLogProbability } from "../sampling/log-probability.js";
import { addModelOptions, loadModel, type ModelOptions } from "./model-options.js";
import { progressBar } from "./terminal.js";

/** Tokens whose logits are held in memory at once. */
const piece = 64;

/** What --json prints. */
interface Perplexity {
  /** Tokens predicted: all of the text's but the first. */
  tokens: number;
  /** Bytes of the text. */
  bytes: number;
  nats_per_token: number;
  bits_per_byte: number;
}

export function addPerplexity(program: Command): void {
  const command = program
    .command("perplexity")
    .description("measure how well a model predicts a text, each token from all tokens before it")
    .argument("<file>", "a text file")
    .option("--json", "print JSON");
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv perplexity tale.txt
  $ rwkv perplexity wiki.txt --model RWKV-4-Pile-430M-20220808-8066.pth --json`,
    )
    .action(async (file: string, options: ModelOptions & { json?: boolean }) => {
      const text = await readText(file);
      const model = await loadModel(options);
      try {
        const measured = await perplexity(model, file, text);
        process.stdout.write(options.json ? `${JSON.stringify(measured)}\n` : report(measured));
      } finally {
        await model.dispose();
      }
    });
}

async function perplexity(model: Model, file: string, text: string): Promise<Perplexity> {
  const tokens = model.tokenizer.encode(text);
  const predicted = tokens.length - 1;
  if (predicted < 1) throw new RwkvError(`${file}: expected at least two tokens, found ${tokens.length}`);
  const state = model.createState();
  const bar = progressBar("reading");
  let nats = 0;
  const { vocabulary } = model.info;
  const logits = new Float32Array(Math.min(piece, predicted) * vocabulary);
  for (let at = 0; at < predicted; at += piece) {
    const part = tokens.slice(at, Math.min(at + piece, predicted));
    const output = logits.subarray(0, part.length * vocabulary);
    await model.forward([{ state, tokens: part, logits: "all", output }]);
    part.forEach((_, i) => {
      const row = output.subarray(i * vocabulary, (i + 1) * vocabulary);
      nats += negativeLogProbability(row, tokens[at + i + 1] as number);
    });
    bar.update(at + part.length, predicted);
  }
  bar.stop();
  const bytes = Buffer.byteLength(text);
  return { tokens: predicted, bytes, nats_per_token: nats / predicted, bits_per_byte: nats / Math.LN2 / bytes };
}

function report({ tokens, bytes, nats_per_token, bits_per_byte }: Perplexity): string {
  return (
    `tokens          ${tokens}\nbytes           ${bytes}\nperplexity      ${Math.exp(nats_per_token).toFixed(3)}\n` +
    `nats per token  ${nats_per_token.toFixed(4)}\nbits per byte   ${bits_per_byte.toFixed(4)}\n`
  );
}
