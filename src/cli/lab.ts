// rwkv lab: looks into a model, and measures what is said of RWKV.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { type Explanation, explain } from "../lab/explain.js";
import { explainReport } from "../lab/explain-report.js";
import { writeFileAtomically } from "../platform/node/file-writer.js";
import { embeddedModel } from "../platform/node/files.js";
import { openTokenizer } from "../tokenizers/open-tokenizer.js";
import { note } from "./terminal.js";

const defaultPrompt = "Once upon a time there was a king who had three sons, and the youngest of them was called";

interface ExplainOptions {
  model?: string;
  tokenizer?: string;
  prompt: string;
  out: string;
}

export function addLab(program: Command): void {
  const lab = program.command("lab").description("look into a model, with reports as pages and JSON");
  lab
    .command("explain")
    .description(
      "what each token of a text does: r, k, v, how fast channels forget, what wkv looks at, predictions by layer",
    )
    .option("-m, --model <path>", "a checkpoint (default: the model in the package)")
    .option("--tokenizer <path>", "its tokenizer (default: the one beside it)")
    .option("--prompt <text>", "the text, at most 64 tokens", defaultPrompt)
    .option("--out <folder>", "folder for explain.json and explain.html", "lab")
    .option("--verbose", "show stack traces of errors")
    .addHelpText("after", '\nExample:\n  $ rwkv lab explain --prompt "The king gave his daughter to the" --out lab')
    .action(async ({ model = embeddedModel, tokenizer, prompt, out }: ExplainOptions) => {
      const explanation = await explain(
        model,
        prompt,
        tokenizer === undefined ? undefined : await openTokenizer(tokenizer),
      );
      await writeReport(out, "explain", explanation, await explainReport(explanation));
      process.stdout.write(summary(explanation));
    });
}

/** Writes results as NAME.json and as the page NAME.html. */
async function writeReport(folder: string, name: string, results: object, page: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const write = (file: string, text: string) =>
    writeFileAtomically(join(folder, file), (to) => to.append(new TextEncoder().encode(text)));
  await write(`${name}.json`, `${JSON.stringify(results, null, 1)}\n`);
  await write(`${name}.html`, page);
  note(`${join(folder, `${name}.html`)}: the report`);
}

function summary({ layers }: Explanation): string {
  const rows = layers.map(({ layer, half_lives, reach, predictions }) => {
    const quantile = (share: number) => (half_lives[Math.floor(share * (half_lives.length - 1))] as number).toFixed(1);
    const { text, probability } = predictions.at(-1) as (typeof predictions)[number];
    return (
      `layer ${layer + 1}  half-lives ${quantile(0.1)}, ${quantile(0.5)}, ${quantile(0.9)} tokens (10 %, median, 90 %); ` +
      `looks ${(reach.at(-1) as number).toFixed(1)} tokens back; next ${JSON.stringify(text)} ${(probability * 100).toFixed(0)} %`
    );
  });
  return `${rows.join("\n")}\n`;
}
