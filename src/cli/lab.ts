// rwkv lab: examines a model, and measures the claims about RWKV.

import { type Command, InvalidArgumentError, Option } from "commander";
import { defaultThreads } from "#platform/backends";
import { embeddedModel } from "#platform/files";
import { RwkvError } from "../errors.js";
import type { Architecture } from "../lab/architectures/architecture.js";
import { architectures, rwkvArchitectures } from "../lab/architectures/index.js";
import type { RwkvArchitecture } from "../lab/architectures/rwkv.js";
import { type CompareResult, compareArchitectures } from "../lab/compare.js";
import { compareReport } from "../lab/compare-report.js";
import { type Explanation, explain } from "../lab/explain.js";
import { explainReport } from "../lab/explain-report.js";
import { generatedTales } from "../lab/generated-tales.js";
import { compareParallel, type ParallelResult } from "../lab/parallel.js";
import { parallelReport } from "../lab/parallel-report.js";
import { exponentText } from "../lab/report.js";
import { byName, type ReportFigures, type ReportName } from "../lab/report-figures.js";
import { writeReport } from "../lab/report-folder.js";
import { measureScale, type ScaleResult } from "../lab/scale.js";
import { scaleReport } from "../lab/scale-report.js";
import { plotLibraries } from "../plots/svg-plot.js";
import { openTokenizer } from "../tokenizers/open-tokenizer.js";
import { type Document, documentOf, holdOut } from "../training/document.js";
import { readDocuments } from "../training/documents.js";
import { placeOfModel } from "./named-model.js";
import { dimensions, wholeNumber } from "./option-parsers.js";
import { note, progressBar } from "./terminal.js";
import { textTable } from "./text-table.js";

const defaultPrompt = "Once upon a time there was a king who had three sons, and the youngest of them was called";

interface ExplainOptions {
  model?: string;
  tokenizer?: string;
  prompt: string;
  out: string;
}

interface ParallelOptions {
  architectures: readonly RwkvArchitecture[];
  shape?: ReturnType<typeof dimensions>;
  batch?: number;
  context?: number;
  threads?: number;
  rounds: number;
  quick?: boolean;
  out: string;
}

export function addLab(program: Command): void {
  const lab = program
    .command("lab")
    .description("examine models and compare architectures; reports are pages and JSON");
  // Each command ends by drawing plots, some after many minutes of measuring, so whether it can is checked first.
  lab.hook("preAction", async () => void (await plotLibraries()));
  addExplain(lab);
  addParallel(lab);
  addScale(lab);
  addCompare(lab);
}

interface CompareOptions {
  data?: string;
  architectures: readonly Architecture[];
  layers?: number;
  width?: number;
  heads: number;
  vocab?: number;
  context?: number;
  batch: number;
  steps?: number;
  threads?: number;
  seed: number;
  quick?: boolean;
  out: string;
}

function addCompare(lab: Command): void {
  lab
    .command("train")
    .description(
      "train architectures side by side on the same text, and compare how well each predicts, by tokens and by time",
    )
    .option("--data <path>", "text, as rwkv train takes it (default: tales that the model in the package tells)")
    .addOption(architecturesOption(architectures))
    .option("--layers <n>", "layers (4; 2 with --quick)", wholeNumber(1, 64))
    .option("--width <n>", "width (128; 64 with --quick)", wholeNumber(1, 4096))
    .option("--heads <n>", "heads of the architectures with attention", wholeNumber(1, 64), 4)
    .option("--vocab <n>", "tokens of the tokenizer (1024; 512 with --quick)", wholeNumber(257))
    .option("--context <n>", "tokens of a sequence (128; 64 with --quick)", wholeNumber(2))
    .option("--batch <n>", "sequences of a step", wholeNumber(1), 8)
    .option("--steps <n>", "steps of each (800; 150 with --quick)", wholeNumber(1))
    .option("--threads <n>", "compute threads (one for each core)", wholeNumber(1, 256))
    .option("--seed <n>", "seed of weights and order", wholeNumber(0, 2 ** 32 - 1), 1)
    .option("--quick", "small models and few steps: three minutes")
    .option("--out <folder>", "folder for train.json and train.html", "lab")
    .action(async (options: CompareOptions) => {
      const { data, quick = false, threads = defaultThreads(), heads, batch, seed, out } = options;
      const { layers = quick ? 2 : 4, width = quick ? 64 : 128, context = quick ? 64 : 128 } = options;
      const { vocab = quick ? 512 : 1024, steps = quick ? 150 : 800 } = options;
      if (width % heads !== 0) throw new RwkvError(`--heads: expected a divisor of the width ${width}, found ${heads}`);
      const documents = holdOut(
        data === undefined ? await tales(quick) : await readDocuments(data, { onNotice: note }),
        0.05,
      );
      const size = { layers, width, heads, vocabulary: vocab, context, batch, steps };
      const results = await compareArchitectures({
        ...size,
        threads,
        seed,
        architectures: options.architectures,
        documents,
        measurements: 10,
        onNotice: note,
        onStep: (name, step, all) => step % Math.ceil(all / 4) === 0 && note(`${name}: step ${step} of ${all}`),
      });
      const text = data ?? "tales told by the model in the package";
      const about = `${layers} layers x ${width}, ${steps} steps of ${batch} x ${context} tokens on ${text}, ${threads} threads.`;
      const figures = { setup: { text, ...size, threads, seed }, results: byName(results) };
      await report(out, "train", figures, await compareReport(results, about));
      process.stdout.write(compareSummary(results));
    });
}

/** About how many tokens the model in the package tells. */
const toldTokens = { quick: 24_000, whole: 300_000 };

async function tales(quick: boolean): Promise<Document[]> {
  const tokens = quick ? toldTokens.quick : toldTokens.whole;
  note(`no --data: the model in the package tells tales, about ${tokens} tokens`);
  const bar = progressBar("telling");
  const tales = await generatedTales(tokens, (done) => bar.update(done, tokens)).finally(() => bar.stop());
  return tales.map((text, i) => documentOf(`tale ${i + 1}`, text));
}

function compareSummary(results: readonly CompareResult[]): string {
  const rows = results.map(({ name, points, parameters, tokens_per_second: speed }) => {
    const bits = points.at(-1)?.bits_per_byte.toFixed(4);
    return [name, `${bits} bits per byte held out, ${parameters} weights, ${speed.toFixed(0)} tokens/s`];
  });
  return `${textTable(rows).join("\n")}\n`;
}

interface ScaleOptions {
  architectures: readonly Architecture[];
  lengths?: number[];
  layers: number;
  width: number;
  heads: number;
  threads?: number;
  rounds: number;
  quick?: boolean;
  out: string;
}

function addScale(lab: Command): void {
  lab
    .command("scale")
    .description(
      "measure how costs grow with the length of a text (training, prompts, tokens, memory), beside the theory",
    )
    .addOption(architecturesOption(architectures))
    .option(
      "--lengths <list>",
      "numbers of tokens, ascending (128 to 16384 by doubling; to 4096 with --quick)",
      lengthList,
    )
    .option("--layers <n>", "layers of each model", wholeNumber(1, 64), 2)
    .option("--width <n>", "width of each model", wholeNumber(1, 4096), 64)
    .option("--heads <n>", "heads of the architectures with attention", wholeNumber(1, 64), 2)
    .option("--threads <n>", "compute threads (one for each core)", wholeNumber(1, 256))
    .option("--rounds <n>", "least number of rounds that medians are taken over", wholeNumber(1), 3)
    .option("--quick", "up to 4096 tokens: two minutes")
    .option("--out <folder>", "folder for scale.json and scale.html", "lab")
    .action(async (options: ScaleOptions) => {
      const { layers, width, heads, threads = defaultThreads(), rounds, quick = false, out } = options;
      if (width % heads !== 0) throw new RwkvError(`--heads: expected a divisor of the width ${width}, found ${heads}`);
      const lengths = options.lengths ?? [128, 256, 512, 1024, 2048, 4096, ...(quick ? [] : [8192, 16384])];
      const setup = { layers, width, heads, lengths, threads, rounds };
      const results = await measureScale({
        ...setup,
        architectures: options.architectures,
        onNotice: note,
        onProgress: (name, length) => note(`${name}, ${length} tokens`),
      });
      await report(out, "scale", { setup, results: byName(results) }, await scaleReport(results, setup));
      process.stdout.write(scaleSummary(results));
    });
}

function scaleSummary(results: readonly ScaleResult[]): string {
  const rows = results.map(({ name, complexity, measured, theory }) => {
    const cell = (exponent: number, expected: number) => `${exponentText(exponent)} (${expected})`;
    return [
      name,
      complexity.time,
      cell(measured.training, theory.training),
      cell(measured.prefill, theory.training),
      cell(measured.token, theory.token),
      cell(measured.state, theory.state),
    ];
  });
  const head = ["", "time", "training step", "prompt", "token", "carried"];
  return [
    "How costs grow: measured exponents of T, with those of the papers in brackets\n",
    ...textTable([head, ...rows], [2, 3, 4, 5]).map((line) => `${line}\n`),
  ].join("");
}

/** Names of architectures, separated by commas; by default those of `all`. */
function architecturesOption<A extends Architecture>(all: readonly A[]): Option {
  const names = all.map(({ name }) => name).join(", ");
  return new Option("--architectures <names>", "names separated by commas")
    .default(all, names)
    .argParser((text: string) =>
      text.split(",").map((name) => {
        const found = all.find((architecture) => architecture.name === name);
        if (found) return found;
        throw new InvalidArgumentError(`expected ${names}, found ${name}`);
      }),
    );
}

function lengthList(text: string): number[] {
  const lengths = text.split(",").map(wholeNumber(1, 2 ** 20));
  if (lengths.some((length, i) => i > 0 && length <= (lengths[i - 1] as number))) {
    throw new InvalidArgumentError("expected ascending numbers");
  }
  return lengths;
}

function addParallel(lab: Command): void {
  lab
    .command("parallel")
    .description(
      "compute the same batch token by token and all at once, and compare speed, losses, gradients, and the share of the recurrence",
    )
    .addOption(architecturesOption(rwkvArchitectures))
    .option("--shape <LxDxV>", "layers x width x vocabulary (6x256x4096)", dimensions)
    .option("--batch <n>", "sequences (16)", wholeNumber(1))
    .option("--context <n>", "tokens of each (256)", wholeNumber(1))
    .option("--threads <n>", "compute threads (one for each core)", wholeNumber(1, 256))
    .option("--rounds <n>", "rounds that medians are taken over", wholeNumber(1), 3)
    .option("--quick", "a smaller model and batch: 2x64x500, 8 x 64")
    .option("--out <folder>", "folder for parallel.json and parallel.html", "lab")
    .action(async (options: ParallelOptions) => {
      const { quick = false, threads = defaultThreads(), rounds, out } = options;
      const size = options.shape ?? dimensions(quick ? "2x64x500" : "6x256x4096");
      const { batch = quick ? 8 : 16, context = quick ? 64 : 256 } = options;
      const setup = { ...size, batch, context, threads, rounds };
      const results: ParallelResult[] = [];
      for (const architecture of options.architectures) {
        note(architecture.name);
        results.push(await compareParallel({ ...setup, architecture, onNotice: note }));
      }
      await report(out, "parallel", { setup, results: byName(results) }, await parallelReport(results, setup));
      process.stdout.write(results.map(parallelSummary).join(""));
    });
}

function parallelSummary(result: ParallelResult): string {
  const worst = Math.max(...result.directions.map(({ parallel, serial }) => Math.abs(parallel / serial - 1)));
  const line = (what: string, serial: number, parallel: number) =>
    `  ${what}: token by token ${serial.toFixed(3)} s, all at once ${parallel.toFixed(3)} s, ` +
    `${(serial / parallel).toFixed(1)} times as fast\n`;
  return (
    `${result.title}\n` +
    line("one text", result.one_text.serial_seconds, result.one_text.parallel_seconds) +
    line("all texts", result.serial_seconds, result.parallel_seconds) +
    `  losses differ by at most ${result.loss_difference.toExponential(1)} nats, gradients along ` +
    `${result.directions.length} directions by ${worst.toExponential(1)} of their size\n` +
    `  the recurrence takes ${(result.wkv_share_of_step * 100).toFixed(1)} % of a training step of ` +
    `${result.step_seconds.toFixed(3)} s\n`
  );
}

function addExplain(lab: Command): void {
  lab
    .command("explain")
    .description(
      "show what each token of a text does: r, k, v, how fast channels forget, which earlier tokens are looked at, what is removed, " +
        "predictions by layer",
    )
    .option("-m, --model <path>", "a checkpoint (default: the model in the package)")
    .option("--tokenizer <path>", "its tokenizer (default: the one beside it)")
    .option("--prompt <text>", "the text, at most 64 tokens", defaultPrompt)
    .option("--out <folder>", "folder for explain.json and explain.html", "lab")
    .addHelpText("after", '\nExample:\n  $ rwkv lab explain --prompt "The king gave his daughter to the" --out lab')
    .action(async ({ model, tokenizer, prompt, out }: ExplainOptions) => {
      const own = tokenizer === undefined ? undefined : await openTokenizer(tokenizer);
      const found = await explain(model === undefined ? embeddedModel : await placeOfModel(model), prompt, own);
      const explanation = { ...found, model: model ?? "the model in the package" };
      await report(out, "explain", explanation, await explainReport(explanation));
      process.stdout.write(summary(explanation));
    });
}

async function report<Name extends ReportName>(
  folder: string,
  name: Name,
  figures: ReportFigures[Name],
  page: string,
): Promise<void> {
  const written = await writeReport(folder, name, figures, page);
  note(`${written.page}: the report; ${written.overview}: all reports`);
}

function summary({ layers }: Explanation): string {
  const rows = layers.map(({ layer, half_lives, reach, predictions, delta_rule: rule }) => {
    const quantile = (share: number) => (half_lives[Math.floor(share * (half_lives.length - 1))] as number).toFixed(1);
    const { text, probability } = predictions.at(-1) as (typeof predictions)[number];
    const removal = rule ? `removes ${((rule.removed.at(-1) as number) * 100).toFixed(1)} % of the state; ` : "";
    return (
      `layer ${layer + 1}  half-lives ${quantile(0.1)}, ${quantile(0.5)}, ${quantile(0.9)} tokens (10 %, median, 90 %); ` +
      `looks ${(reach.at(-1) as number).toFixed(1)} tokens back; ${removal}next ${JSON.stringify(text)} ${(probability * 100).toFixed(0)} %`
    );
  });
  return `${rows.join("\n")}\n`;
}
