// rwkv bench: how fast a model runs or trains, as a share of what the machine can do.

import { type Command, InvalidArgumentError, Option } from "commander";
import prettyBytes from "pretty-bytes";
import { defaultThreads } from "#platform/backends";
import type { BackendName } from "../backends/backend.js";
import { createNativeMachine } from "../backends/native/native.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { MachineProbes } from "../bench/machine-probes.js";
import { benchmarkModel, letterTokenizer, type Measurement, workPerToken } from "../bench/model-benchmark.js";
import { type SyntheticModel, syntheticCheckpoint } from "../bench/synthetic-checkpoint.js";
import { benchmarkTraining, type TrainingMeasurement } from "../bench/training-benchmark.js";
import type { Checkpoint } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { isFloatType, type WeightDType, weightDTypes } from "../dtypes.js";
import { loadCheckpoint } from "../load.js";
import { bindModel } from "../models/versions.js";
import { placeOfModel } from "./named-model.js";
import { shape, wholeNumber } from "./option-parsers.js";
import { note } from "./terminal.js";
import { textTable } from "./text-table.js";

interface BenchOptions {
  model?: string;
  shape?: SyntheticModel;
  version?: string;
  train?: boolean;
  batch: number;
  context: number;
  backend: BackendName[];
  dtype?: WeightDType[];
  threads?: number;
  rounds: number;
  json?: boolean;
}

export function addBench(program: Command): void {
  program
    .command("bench")
    .description("measure decoding, prompts, batches and loading, as a share of what the machine can do")
    .addOption(new Option("-m, --model <path>", "a checkpoint").conflicts("shape"))
    .option(
      "--shape <LxDxV>",
      "a synthetic model: layers x width x vocabulary, of another version with that and a colon before it (12x768x50277; 6x256x4096 with --train)",
      shape,
    )
    .addOption(
      new Option("--version <v>", "its version, where the shape does not say it")
        .argParser((text) => shape(`${text}:1x64x64`) && text)
        .conflicts("model"),
    )
    .addOption(new Option("--train", "measure training instead, in float32").conflicts(["model", "dtype"]))
    .option("--batch <n>", "sequences of a training step", wholeNumber(1), 16)
    .option("--context <n>", "tokens of each", wholeNumber(1), 256)
    .option(
      "--backend <names>",
      "backends separated by commas: native, wasm, reference",
      names(["native", "wasm", "reference"]),
      ["native"],
    )
    .option(
      "--dtype <types>",
      "types separated by commas: f32, bf16, f16, q8, q4 (default: as stored; bf16)",
      names(weightDTypes),
    )
    .option("--threads <n>", "compute threads (default: one for each core)", wholeNumber(1, 256))
    .option("--rounds <n>", "rounds that medians are taken over", wholeNumber(1), 3)
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv bench --shape 24x1024x50277 --dtype f32,bf16
  $ rwkv bench --shape 7:24x1024x65536 --dtype f16,q8,q4
  $ rwkv bench --train --shape 6x256x4096 --backend native,wasm
  $ rwkv bench --model RWKV-4-Pile-430M-20220808-8066.pth --backend native,wasm --json`,
    )
    .action(bench);
}

async function bench(options: BenchOptions): Promise<void> {
  if (options.train) return benchTraining(options);
  const measurements: Measurement[] = [];
  for (const backend of options.backend) {
    for (const dtype of options.dtype ?? [undefined]) measurements.push(await measure(options, backend, dtype));
  }
  process.stdout.write(
    options.json ? `${JSON.stringify(measurements, null, 2)}\n` : measurements.map(report).join("\n"),
  );
}

async function benchTraining(options: BenchOptions): Promise<void> {
  const model = syntheticModel(options, "6x256x4096");
  const { batch, context, rounds, threads = defaultThreads() } = options;
  const measurements: TrainingMeasurement[] = [];
  for (const backend of options.backend) {
    const probes = await probesOf(backend, threads);
    const setup = { model, batch, context, backend, threads, rounds, onNotice: note };
    measurements.push(await benchmarkTraining(setup, probes).finally(() => probes?.dispose()));
  }
  process.stdout.write(
    options.json ? `${JSON.stringify(measurements, null, 2)}\n` : measurements.map(trainingReport).join("\n"),
  );
}

async function measure(
  options: BenchOptions,
  backend: BackendName,
  dtype: WeightDType | undefined,
): Promise<Measurement> {
  const started = performance.now();
  const checkpoint = await checkpointOf(options, dtype);
  const bound = bindModel(checkpoint);
  const work = workPerToken(bound, dtype);
  const model = await loadCheckpoint(checkpoint, {
    backend,
    tokenizer: letterTokenizer(bound.size.vocabulary),
    onWarning: note,
    ...(dtype && { dtype }),
    ...(options.threads !== undefined && { threads: options.threads }),
  });
  const probes = await probesOf(backend, model.info.threads);
  try {
    return await benchmarkModel(model, work, probes, started, options.rounds);
  } finally {
    await probes?.dispose();
    await model.dispose();
  }
}

async function checkpointOf(options: BenchOptions, dtype: WeightDType = "bf16"): Promise<Checkpoint> {
  if (options.model !== undefined) return openCheckpoint(await placeOfModel(options.model));
  return syntheticCheckpoint(syntheticModel(options, "12x768x50277"), isFloatType(dtype) ? dtype : "bf16");
}

/** The model of --shape, or the usual one, and of --version. */
function syntheticModel({ shape: given, version }: BenchOptions, usual: string): SyntheticModel {
  const { name } = given ?? shape(usual);
  return version === undefined || name.includes(":") ? shape(name) : shape(`${version}:${name}`);
}

async function probesOf(backend: BackendName, threads: number): Promise<MachineProbes | undefined> {
  if (backend === "native") return new MachineProbes(await createNativeMachine(threads));
  if (backend === "wasm") return new MachineProbes(await createWasmMachine(threads));
  return undefined;
}

function trainingReport(m: TrainingMeasurement): string {
  const share = m.train_of_peak === null ? "" : `, ${(m.train_of_peak * 100).toFixed(0)} % of float32's peak`;
  const machine = m.peak_gflops === null ? "" : `; machine: ${m.peak_gflops.toFixed(0)} GFLOP/s`;
  const threads = `${m.threads} thread${m.threads === 1 ? "" : "s"}`;
  return (
    `training ${m.model}, ${m.batch} x ${m.context} tokens, ${m.backend}, ${threads}${machine}\n` +
    `  train  ${m.train_tok_s.toFixed(0).padStart(8)} tokens/s  ${m.train_gflops.toFixed(0)} GFLOP/s${share}\n` +
    `  memory ${prettyBytes(m.memory_mb * 1e6).padStart(8)}           resident in all ${prettyBytes(m.rss_mb * 1e6)}\n`
  );
}

function report(m: Measurement): string {
  const percent = (share: number | null, of: string) =>
    share === null ? "" : `${(share * 100).toFixed(0)} % of ${of}`;
  const rows: readonly (readonly [string, string, string])[] = [
    ["decode", `${m.decode_tok_s.toFixed(1)} tokens/s`, percent(m.decode_of_limit, "the bandwidth limit")],
    [
      "a token",
      `${m.decode_p50_ms.toFixed(1)} ms`,
      `half of them; 90 % ${m.decode_p90_ms.toFixed(1)} ms, 99 % ${m.decode_p99_ms.toFixed(1)} ms`,
    ],
    ["generate", `${m.generate_tok_s.toFixed(1)} tokens/s`, percent(m.generate_tok_s / m.decode_tok_s, "decode")],
    ["prefill (512)", `${m.prefill_tok_s.toFixed(0)} tokens/s`, percent(m.prefill_of_peak, "float32's peak")],
    ...m.batches.map((batch): readonly [string, string, string] => [
      `batch of ${batch.sequences}`,
      `${batch.tok_s.toFixed(0)} tokens/s`,
      `${(batch.tok_s / m.decode_tok_s).toFixed(1)} x decode` +
        (batch.bound_tok_s === null
          ? ""
          : `, ${percent(batch.of_bound, `the bound, ${batch.bound_tok_s.toFixed(0)} tokens/s`)}`),
    ]),
    [
      "8 generations",
      `${m.generate8_tok_s.toFixed(0)} tokens/s`,
      percent(m.generate8_tok_s / m.batch8_tok_s, "the batch of 8"),
    ],
    ["load", `${m.load_ms.toFixed(0)} ms`, `first token after ${m.first_token_ms.toFixed(0)} ms`],
    ["memory", prettyBytes(m.rss_mb * 1e6), `${prettyBytes(m.weight_bytes_per_token)} of weights a token`],
  ];
  const machine =
    m.read_gb_s === null ? "" : `; machine: ${m.read_gb_s.toFixed(1)} GB/s read, ${m.peak_gflops?.toFixed(0)} GFLOP/s`;
  const threads = `${m.threads} thread${m.threads === 1 ? "" : "s"}`;
  const lines = textTable(rows, [1]).map((line) => `  ${line}\n`);
  return `${m.model}, ${m.dtype}, ${m.backend}, ${threads}${machine}\n${lines.join("")}`;
}

function names<T extends string>(allowed: readonly T[]): (text: string) => T[] {
  return (text) => {
    const wanted = text.split(",") as T[];
    const unknown = wanted.find((name) => !allowed.includes(name));
    if (unknown !== undefined) throw new InvalidArgumentError(`expected ${allowed.join(", ")}, found ${unknown}`);
    return wanted;
  };
}
