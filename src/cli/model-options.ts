// The options that every command with a model takes, and loading by them.

import { type Command, Option } from "commander";
import type { BackendName } from "../backends/backend.js";
import type { WeightDType } from "../dtypes.js";
import type { Model, ModelLimits } from "../generation/model.js";
import type { ComingFile } from "../hub/coming-file.js";
import { type LoadOptions, load, loadCheckpoint } from "../load.js";
import { loadComing } from "../load-coming.js";
import type { LoraSource } from "../models/lora-source.js";
import { loadWhileComing } from "./named-model.js";
import { dtypeOption, loraSource, wholeNumber } from "./option-parsers.js";
import { note, progressBar } from "./terminal.js";

/** Values of the options below. */
export interface ModelOptions {
  model?: string;
  tokenizer?: string;
  lora?: LoraSource[];
  dtype?: WeightDType;
  backend?: BackendName | "auto";
  strategy?: string;
  threads?: number;
  skipZeros?: boolean;
}

/** Adds --model, --tokenizer, --lora, --dtype, --backend, --strategy, --threads, --skip-zeros. */
export function addModelOptions(command: Command): Command {
  return command
    .option(
      "-m, --model <path>",
      ".pth, .safetensors, .gguf or rwkv.cpp .bin file, a folder with one, or a name as of rwkv pull (default: the model in the package)",
    )
    .option(
      "--tokenizer <path>",
      'tokenizer.json, World vocabulary, folder with one, "world" or "bytes" (default: by the model)',
    )
    .option(
      "--lora <file[:strength[:layers]]>",
      "put an adapter (LoRA) onto the model, also onto some layers, as 0-11,15; can be given several times",
      (text, all: LoraSource[] = []) => [...all, loraSource(text)],
    )
    .addOption(dtypeOption("type of the weights in memory (default: as stored)"))
    .addOption(
      new Option("--backend <name>", "where to compute (default: native, else wasm)").choices([
        "native",
        "wasm",
        "webgpu",
        "auto",
        "reference",
      ]),
    )
    .addOption(
      new Option(
        "--strategy <parts>",
        'several backends, the first layers on the first, as "webgpu *10 -> native" (docs/browser.md)',
      ).conflicts("backend"),
    )
    .option("--threads <n>", "compute threads (default: one for each core)", wholeNumber(1, 256))
    .option("--skip-zeros", "leave weights unread whose inputs are zero: the same results sooner, for more memory");
}

/** Loads the model that the options name, with a progress bar. */
export async function loadModel(options: ModelOptions, limits: ModelLimits = {}): Promise<Model> {
  const own: LoadOptions = {
    ...(options.tokenizer !== undefined && { tokenizer: options.tokenizer }),
    ...(options.lora && { lora: options.lora }),
    ...(options.dtype && { dtype: options.dtype }),
    ...(options.backend && { backend: options.backend }),
    ...(options.strategy !== undefined && { strategy: options.strategy }),
    ...(options.threads !== undefined && { threads: options.threads }),
    ...(options.skipZeros && { skipZeros: true }),
    limits,
    onWarning: note,
  };
  // What is downloaded has a bar of its own.
  const loadOf = (file: ComingFile) => loadComing(file, (checkpoint) => loadCheckpoint(checkpoint, own));
  const found = options.model === undefined ? undefined : await loadWhileComing(options.model, loadOf);
  if (typeof found === "object") return found;
  const bar = progressBar("loading");
  try {
    return await load(found, { ...own, onProgress: bar.update });
  } finally {
    bar.stop();
  }
}

/** One line about a loaded model. */
export function describeModel(model: Model): string {
  const { version, layers, width, parameters, dtype, backend, strategy, threads, loadMilliseconds } = model.info;
  return (
    `RWKV-${version}, ${layers} layer${layers === 1 ? "" : "s"} x ${width}, ${(parameters / 1e6).toFixed(1)} M parameters in ${dtype}, ` +
    `${strategy ?? backend} on ${threads} thread${threads === 1 ? "" : "s"}, loaded in ${loadMilliseconds.toFixed(0)} ms`
  );
}
