// rwkv train: from text to a checkpoint.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { RwkvError } from "../errors.js";
import { load } from "../load.js";
import { definitions, newModels } from "../models/definitions.js";
import type { StepProgress, TrainOptions, TrainResult } from "../training/options.js";
import { agreed, isKnownToAll, joinRanks, OtherRankError, type Ranks } from "../training/ranks.js";
import { parseRecipe } from "../training/recipe.js";
import { train } from "../training/train.js";
import { convert, writableEndings } from "./convert.js";
import { duration } from "./duration.js";
import { placeOfModel } from "./named-model.js";
import { number, wholeNumber } from "./option-parsers.js";
import { bar, StatusLine } from "./status-line.js";
import { note } from "./terminal.js";

/** Values of the command's options; those that were not given are absent. */
interface TrainCommandOptions {
  data?: string;
  out?: string;
  from?: string;
  config?: string;
  lr?: number;
  lrFinal?: number;
  vocab?: number;
  clip?: number;
  lora?: boolean;
  loraRank?: number;
  loraAlpha?: number;
  loraMatrices?: string[];
  sampleEvery?: number;
  prompt?: string;
  verbose?: boolean;
  [name: string]: unknown;
}

const sampleTokens = 60;

export function addTrain(program: Command): void {
  program
    .command("train")
    .description("train a model on text, or continue from a checkpoint")
    .option(
      "--data <path>",
      "a text file, records in JSON (text, messages, or instruction and output), a folder of such files, or a binidx",
    )
    .option(
      "--out <folder>",
      "folder of the run; x.pth or x.safetensors makes the folder x, and exports the model to that file at the end",
    )
    .option("--config <file>", 'JSON with options by their long names, such as {"layers": 4}; those given here win')
    .option("--resume", "resume the run in --out; --steps or --epochs then set its new end")
    .option("--from <checkpoint>", "fine-tune this model")
    .option(
      "--tokenizer <path>",
      'a tokenizer, a folder with one, "world" or "bytes" (default: that of --from, else one is trained)',
    )
    .option(
      "--version <v>",
      `RWKV version of a new model: ${definitions.map(({ version }) => version).join(", ")} (${newModels.version})`,
    )
    .option("--layers <n>", "layers of a new model (6)", wholeNumber(1))
    .option("--width <n>", "width of its residual stream (256)", wholeNumber(1))
    .option("--hidden <n>", "width of its channel mixing (4 x width)", wholeNumber(1))
    .option("--vocab <n>", "tokens of the tokenizer that is trained (4096)", wholeNumber(257))
    .option("--context <n>", "tokens of a sequence (256)", wholeNumber(1))
    .option("--batch <n>", "sequences of a step, over all ranks of mpirun (16)", wholeNumber(1))
    .addOption(new Option("--steps <n>", "steps in all").argParser(wholeNumber(1)).conflicts("epochs"))
    .option("--epochs <x>", "passes over the text (1)", number(0))
    .option("--lr <x>", "highest learning rate (8e-4; 1e-4 with --from)", number(0))
    .option("--lr-final <x>", "learning rate at the end (a tenth)", number(0))
    .addOption(new Option("--decay <how>", "how the learning rate falls (cosine)").choices(["cosine", "exponential"]))
    .option(
      "--warmup <n>",
      "warm-up steps, in which the learning rate rises (a fiftieth of all, at most 200)",
      wholeNumber(0),
    )
    .option("--weight-decay <x>", "weight decay of matrices (0.01)", number(0))
    .option("--beta1 <x>", "beta1 of AdamW (0.9)", number(0, 1))
    .option("--beta2 <x>", "beta2 of AdamW (0.99)", number(0, 1))
    .option("--clip <x>", "clip the norm of all gradients together to this (1)", number(0))
    .option("--logit-penalty <x>", "weight of the penalty on the largest logit, L2Wrap (1e-4)", number(0, 1))
    .option("--dropout <x>", "fraction of each half-layer's output that is dropped (0)", number(0, 1))
    .option("--seed <n>", "seed of weights, order and dropout (1)", wholeNumber(0))
    .option("--lora", "learn low-rank additions to the matrices of --from")
    .option("--lora-rank <n>", "rank of the low-rank additions (8)", wholeNumber(1))
    .option("--lora-alpha <x>", "the additions are multiplied by this / rank (2 x rank)", number(0))
    .option(
      "--lora-matrices <names>",
      "the matrices to add to, separated by commas, such as att.key,ffn.value (all)",
      (text) => text.split(","),
    )
    .option("--tune-state", "learn only the state that texts begin with; use it with rwkv generate --state")
    .option("--carry-state", "read the text in order, and pass the state from step to step")
    .option("--checkpointing", "recompute values rather than keep them: less memory, a third more time")
    .option("--validation <x>", "fraction of the text that is held out for measuring (0.05)", number(0, 0.5))
    .option("--validate-every <n>", "steps between measurements (100)", wholeNumber(1))
    .option("--save-every <n>", "steps between saves (100)", wholeNumber(1))
    .option("--sample-every <n>", "saves between samples of text; 0 for none (5)", wholeNumber(0))
    .option("--prompt <text>", "what samples begin with (an empty line)")
    .addOption(new Option("--dtype <type>", "type of the saved weights (f32)").choices(["f32", "f16", "bf16"]))
    .addOption(
      new Option("--backend <name>", "where to compute (native, else wasm)").choices(["native", "wasm", "reference"]),
    )
    .option("--threads <n>", "compute threads (one for each core)", wholeNumber(1, 256))
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv train --data tale.txt --out run/
  $ rwkv train --data books/ --out run/ --layers 4 --width 192 --vocab 2048 --lr 4e-3 --epochs 2
  $ rwkv train --out run/ --data books/ --resume
  $ rwkv train --out run/ --data books/ --resume --epochs 4
  $ rwkv train --data chats.jsonl --out tuned.pth --from RWKV-4-Pile-169M-20220807-8023.pth --lora --checkpointing
  $ mpirun -n 4 rwkv train --data books/ --out run/ --batch 64
  $ rwkv generate --model run/ "Once upon a time"`,
    )
    .action(run);
}

/** Runs the command; in processes that mpirun has started together each is a rank of one run, and the first reports. */
async function run(given: TrainCommandOptions, command: Command): Promise<void> {
  let ranks: Ranks | undefined;
  try {
    ranks = await joinRanks(note);
    await runOn(ranks, given, command);
  } catch (error) {
    process.exitCode = 1;
    if (error instanceof OtherRankError) return; // that rank reports it
    if (!ranks || ranks.size === 1) throw error;
    note(`error: ${ranks.rank > 0 ? `rank ${ranks.rank}: ` : ""}${(error as Error).message}`);
    if (given.verbose) console.error(error);
    if (!isKnownToAll(error)) ranks.abort(); // the others would wait for this one
  }
}

/** The command's own options, and those of the run. */
interface Prepared {
  readonly options: TrainCommandOptions;
  readonly runOptions: TrainOptions;
}

async function prepared(given: TrainCommandOptions, command: Command): Promise<Prepared> {
  const options = { ...(given.config === undefined ? {} : await readConfig(given.config, command.options)), ...given };
  const { data, out } = options;
  if (data === undefined || out === undefined)
    throw new RwkvError("expected --data and --out, or a --config with them");
  if (options.from !== undefined) options.from = await placeOfModel(options.from);
  return { options, runOptions: { ...trainOptions(options), data, out: out.replace(writableEndings, "") } };
}

async function runOn(ranks: Ranks, given: TrainCommandOptions, command: Command): Promise<void> {
  const { options, runOptions } = await agreed(ranks, () => prepared(given, command));
  const exported = writableEndings.test(options.out as string) ? options.out : undefined;
  const folder = runOptions.out;
  const isFirst = ranks.rank === 0;
  const interrupt = new AbortController();
  const onInterrupt = () => {
    if (interrupt.signal.aborted) process.exit(130); // at a second Ctrl-C, at once
    interrupt.abort();
    if (isFirst) display.line("stopping after this step; press Ctrl-C again to stop at once");
  };
  const display = new Display();
  process.on("SIGINT", onInterrupt);
  // What mpirun makes of Ctrl-C, some seconds or one before it kills; it may come beside that of the terminal.
  const onTerminate = () => interrupt.abort();
  if (ranks.size > 1) process.on("SIGTERM", onTerminate);
  let saves = 0;
  try {
    const result = await train({
      ...runOptions,
      signal: interrupt.signal,
      onNotice: (line) => display.line(line),
      onStep: (progress) => display.step(progress),
      async onSave({ step }) {
        const { sampleEvery = 5, prompt = "\n\n", backend, threads } = options;
        if (sampleEvery === 0 || step === 0 || ++saves % sampleEvery !== 0) return;
        const where = {
          ...((await readsBytes(folder)) && { tokenizer: "bytes" }),
          ...(backend !== undefined && { backend }),
          ...(threads !== undefined && { threads }),
        };
        display.line(`--- step ${step}\n${await sample(folder, prompt, where as object)}\n---`);
      },
    });
    display.stop();
    if (isFirst) {
      report(result, folder, result.finished && (await readsBytes(folder)));
      if (exported && result.finished) await convert(folder, exported);
    }
    if (interrupt.signal.aborted) process.exitCode = 130;
  } finally {
    display.stop();
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onTerminate);
  }
}

/** Options of the API by the names of the command. */
function trainOptions(options: TrainCommandOptions): Omit<TrainOptions, "data" | "out"> {
  const { lr, lrFinal, vocab, clip, lora, loraRank, loraAlpha, loraMatrices, ...rest } = options;
  if (!lora && [loraRank, loraAlpha, loraMatrices].some((value) => value !== undefined)) {
    throw new RwkvError("--lora-rank, --lora-alpha and --lora-matrices need --lora");
  }
  for (const name of ["config", "sampleEvery", "prompt", "verbose"]) delete rest[name];
  const adapted = {
    learningRate: lr,
    finalLearningRate: lrFinal,
    vocabulary: vocab,
    maxGradientNorm: clip,
    lora: lora ? defined({ rank: loraRank, alpha: loraAlpha, matrices: loraMatrices }) : undefined,
  };
  return { ...rest, ...defined(adapted) } as Omit<TrainOptions, "data" | "out">;
}

function defined<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}

async function readConfig(path: string, known: readonly Option[]): Promise<TrainCommandOptions> {
  let value: unknown;
  try {
    value = JSON.parse((await readFile(path, "utf8")).replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new RwkvError(`${path}: expected a JSON file with options (${(cause as Error).message})`, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RwkvError(`${path}: expected a JSON object with options`);
  }
  // "weight-decay" and "weightDecay" are the same option.
  const camel = (name: string) => name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
  const options = Object.entries(value).map(([name, given]) => {
    const option = known.find((one) => one.attributeName() === camel(name));
    if (!option) throw new RwkvError(`${path}: expected options of rwkv train, found "${name}"`);
    return [camel(name), configured(path, name, option, given)] as const;
  });
  return Object.fromEntries(options);
}

/** Checks the value of an option from a file as one from the command line. */
function configured(path: string, name: string, option: Option, value: unknown): unknown {
  const found = () => `found ${JSON.stringify(value)?.slice(0, 60)}`;
  if (!option.required) {
    if (typeof value === "boolean") return value;
    throw new RwkvError(`${path}: ${name}: expected true or false, ${found()}`);
  }
  const text = Array.isArray(value) ? value.join(",") : value;
  if (typeof text !== "string" && typeof text !== "number") {
    throw new RwkvError(`${path}: ${name}: expected a number or a string, ${found()}`);
  }
  try {
    return option.parseArg ? option.parseArg(String(text), undefined) : String(text);
  } catch (cause) {
    throw new RwkvError(`${path}: ${name}: ${(cause as Error).message}, ${found()}`, { cause });
  }
}

async function sample(folder: string, prompt: string, where: object): Promise<string> {
  const model = await load(folder, where);
  try {
    const generation = model.generate(prompt, { maxTokens: sampleTokens, topP: 0.85, seed: 1 });
    let text = "";
    for await (const piece of generation) text += piece;
    return text.trim();
  } finally {
    await model.dispose();
  }
}

/** Whether a run was told to read bytes, of which no file in its folder tells a model. */
async function readsBytes(folder: string): Promise<boolean> {
  const file = join(folder, "training.json");
  return parseRecipe(file, await readFile(file, "utf8")).tokenizer === "bytes";
}

function report(
  { finished, saved, step, steps, loss, validationBitsPerByte, seconds }: TrainResult,
  folder: string,
  isOfBytes: boolean,
): void {
  if (steps !== undefined) {
    const last = loss === undefined ? "" : `: loss ${loss.toFixed(4)}`;
    const held =
      validationBitsPerByte === undefined ? "" : `, ${validationBitsPerByte.toFixed(4)} bits per byte held out`;
    note(`${step} of ${steps} steps in ${duration(seconds)}${last}${held}`);
  }
  if (finished) note(`the model: rwkv generate --model ${folder}${isOfBytes ? " --tokenizer bytes" : ""}`);
  else if (saved) note(`stopped; continue with: rwkv train --out ${folder} --data ... --resume`);
  else note("stopped before the first step; nothing was saved");
}

/** Shows progress: a bar on a terminal, elsewhere a line at intervals. */
class Display {
  readonly #bar = new StatusLine();
  #lastLine = Number.NEGATIVE_INFINITY;
  #validation = "";

  step(progress: StepProgress): void {
    const { step, steps, loss, bitsPerByte, tokensPerSecond, secondsLeft, validationBitsPerByte } = progress;
    if (validationBitsPerByte !== undefined) this.#validation = `, held out ${validationBitsPerByte.toFixed(3)}`;
    const numbers = `loss ${loss.toFixed(3)}, ${bitsPerByte.toFixed(3)} bits per byte${this.#validation}`;
    const speed = `${tokensPerSecond.toFixed(0)} tokens/s, ${duration(secondsLeft)} left`;
    if (process.stderr.isTTY) {
      this.#bar.draw(`${bar(step / steps, 20)} ${step}/${steps} ${numbers}; ${speed}`);
    } else if (performance.now() - this.#lastLine > 10_000 || step === steps) {
      this.#lastLine = performance.now();
      note(`step ${step} of ${steps}: ${numbers}; ${speed}`);
    }
  }

  /** A line above the bar. */
  line(text: string): void {
    this.stop();
    note(text);
  }

  stop(): void {
    this.#bar.clear();
  }
}
