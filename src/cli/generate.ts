// rwkv generate: continues a prompt, several times from one reading of it.

import type { Command } from "commander";
import type { GenerationResult } from "../generation/generation-progress.js";
import type { Model } from "../generation/model.js";
import { readText } from "../platform/node/files.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { readEscapes } from "./escapes.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import {
  addSamplingOptions,
  type SamplingFlags,
  samplingOptions,
  stateOption,
  tokenIds,
  wholeNumber,
} from "./option-parsers.js";
import { note, progressBar, readStdin, stdinHasText } from "./terminal.js";

/** The prompt of the original RWKV demo. */
const dragonPrompt =
  "\nIn a shocking finding, scientist discovered a herd of dragons living in a remote, previously unexplored valley, in Tibet. " +
  "Even more surprising to the researchers was the fact that the dragons spoke perfect Chinese.";
/** A prompt that suits the model in the package, which has read fairy tales. */
const talePrompt = "Once upon a time there was a little girl who";

interface GenerateOptions extends ModelOptions, SamplingFlags {
  file?: string;
  trials: number;
  state?: string;
  maxTokens?: number;
  escape?: boolean;
  stop?: string[];
  stopTokens?: number[];
}

export function addGenerate(program: Command): void {
  const command = program
    .command("generate")
    .description("continue a prompt; text goes to stdout, everything else to stderr")
    .argument("[prompt]", 'the text to continue; "-" reads stdin (default: a demonstration prompt)')
    .option("-f, --file <path>", "read the prompt from a file")
    .option("-e, --escape", "read \\n, \\r, \\t, \\', \\\", \\\\ and \\xHH in the prompt argument and in --stop")
    .addOption(stateOption())
    .option("--trials <n>", "how many texts to generate from the prompt", wholeNumber(1), 3)
    .option(
      "-n, --max-tokens <n>",
      "the most tokens of each text (default: 100; 200 for the model in the package)",
      wholeNumber(1),
    )
    .option(
      "--stop <text>",
      "end the text before this string; can be given several times",
      (text, all: string[] = []) => [...all, text],
    )
    .option("--stop-tokens <ids>", "end the text at these token ids, separated by commas", tokenIds);
  addSamplingOptions(command, { temperature: 1, topP: 0.85, presencePenalty: 0, frequencyPenalty: 0 });
  addModelOptions(command)
    .addHelpText(
      "after",
      `
A prompt from a file or from stdin is UTF-8 text. One line break at its end is dropped, since editors and echo add it;
for a prompt that ends in a line break, leave an empty line at the end. Windows line breaks are read as \\n. An argument is
taken as it is.

Examples:
  $ rwkv generate
  $ rwkv generate "The cat sat on" --trials 1 --seed 42
  $ rwkv generate --model RWKV-4-Pile-430M-20220808-8066.pth --tokenizer 20B_tokenizer.json --dtype bf16
  $ rwkv generate --file chapter.txt --max-tokens 300 --temperature 0.8 --top-p 0.5 > continuation.txt
  $ rwkv generate -e "Bob: Hello\\n\\nAlice:" --stop "\\n\\n"
  $ cat chapter.txt | rwkv generate -`,
    )
    .action(generate);
}

async function generate(prompt: string | undefined, options: GenerateOptions, command: Command): Promise<void> {
  const text = await promptText(prompt, options);
  const model = await loadModel(options);
  try {
    await generateTrials(model, text, { ...options, sampling: samplingOptions(options, command) });
  } finally {
    await model.dispose();
  }
}

async function generateTrials(
  model: Model,
  text: string,
  options: GenerateOptions & { readonly sampling: SamplingOptions },
): Promise<void> {
  note(describeModel(model));
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort());

  const session = model.session(options.state === undefined ? undefined : await model.readState(options.state));
  const bar = progressBar("reading the prompt");
  const started = performance.now();
  const promptTokens = await session.read(text, { onProgress: bar.update, signal: interrupt.signal }).catch((error) => {
    if (!interrupt.signal.aborted) throw error;
    return 0;
  });
  bar.stop();
  const promptSeconds = (performance.now() - started) / 1000;

  const { trials, stopTokens, maxTokens = options.model === undefined ? 200 : 100 } = options;
  const stop = options.escape ? options.stop?.map(readEscapes) : options.stop;
  if (stop?.some((one) => /\\[nrt]/.test(one)))
    note("(--stop is taken as it is; with --escape, \\n in it is a new line)");
  const ends = { maxTokens, ...(stop && { stop }), ...(stopTokens && { stopTokens }) };
  for (let trial = 0; trial < trials && !interrupt.signal.aborted; trial++) {
    const seed = options.seed === undefined ? {} : { seed: options.seed + trial };
    const fork = await session.fork();
    const sampling = { ...options.sampling, ...ends, ...seed };
    const generation = fork.generate({ ...sampling, signal: interrupt.signal });
    if (trials > 1) note(`\n--- ${trial + 1} of ${trials} ---`);
    process.stderr.write(text);
    for await (const piece of generation) process.stdout.write(piece);
    process.stdout.write("\n");
    note(summary(await generation.result, promptTokens, promptSeconds));
    await fork.dispose();
  }
  if (interrupt.signal.aborted) process.exitCode = 130;
}

async function promptText(prompt: string | undefined, options: GenerateOptions): Promise<string> {
  if (options.file !== undefined) return promptOf(await readText(options.file));
  if (prompt === "-") return promptOf(await readStdin());
  if (prompt !== undefined) return options.escape ? readEscapes(prompt) : prompt;
  const piped = stdinHasText() ? promptOf(await readStdin()) : "";
  return piped || (options.model === undefined ? talePrompt : dragonPrompt);
}

/** A text file as a prompt: with the line ends of models' training data, and without that of its last line. */
function promptOf(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(/\n$/, "");
}

function summary(result: GenerationResult, promptTokens: number, promptSeconds: number): string {
  const prompt = `prompt: ${promptTokens} tokens, ${(promptTokens / promptSeconds).toFixed(0)} tokens/s`;
  const speed = `${result.generatedTokens} tokens, ${result.decodeTokensPerSecond.toFixed(0)} tokens/s`;
  return `[${speed}; ${prompt}; seed ${result.seed}]`;
}
