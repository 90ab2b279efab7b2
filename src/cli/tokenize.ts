// rwkv tokenize: text from stdin to token ids.

import type { Command } from "commander";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { bindModel } from "../models/versions.js";
import { embeddedModel } from "../platform/node/files.js";
import { openTokenizer, tokenizerFor } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { placeOfModel } from "./named-model.js";
import { readStdin } from "./terminal.js";

interface TokenizeOptions {
  tokenizer?: string;
  model?: string;
  json?: boolean;
}

export function addTokenize(program: Command): void {
  program
    .command("tokenize")
    .description("turn text from stdin into token ids")
    .option("--tokenizer <path>", 'tokenizer.json, World vocabulary, folder with one, "world" or "bytes"')
    .option("-m, --model <path>", "use the tokenizer of this model (default: the model in the package)")
    .option("--json", "print a JSON array")
    .addHelpText(
      "after",
      `
Examples:
  $ echo -n "Hello, world" | rwkv tokenize --tokenizer 20B_tokenizer.json
  $ rwkv tokenize --tokenizer rwkv_vocab_v20230424.txt --json < text.txt`,
    )
    .action(async (options: TokenizeOptions) => {
      const ids = (await tokenizerOf(options)).encode(await readStdin());
      process.stdout.write(`${options.json ? JSON.stringify(ids) : ids.join(" ")}\n`);
    });
}

async function tokenizerOf(options: TokenizeOptions): Promise<Tokenizer> {
  if (options.tokenizer !== undefined) return openTokenizer(options.tokenizer);
  const path = options.model === undefined ? embeddedModel : await placeOfModel(options.model);
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  return tokenizerFor(checkpoint, bindModel(checkpoint).size.vocabulary);
}
