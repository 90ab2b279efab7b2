// Parsers of option values that several commands take; what they refuse, commander reports with the option's name.

import { existsSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { SyntheticModel } from "../bench/synthetic-checkpoint.js";
import { weightDTypes } from "../dtypes.js";
import { definitions, newModels } from "../models/definitions.js";
import type { LoraSource } from "../models/lora-source.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { type SamplingPreset, type SamplingPresetName, samplingPresets } from "../sampling/sampling-presets.js";

/** A parser for numbers from `low` to `high`. */
export function number(low: number, high = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (!(value >= low && value <= high)) throw new InvalidArgumentError(`expected a number ${rangeText(low, high)}`);
    return value;
  };
}

/** A parser for whole numbers from `low` to `high`. */
export function wholeNumber(low: number, high: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (!Number.isSafeInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`expected a whole number ${rangeText(low, high)}`);
    }
    return value;
  };
}

/** A number of bytes, perhaps with a unit: 512, 64KiB, 1.5GiB, 2GB. */
export function byteCount(text: string): number {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)\s*(|[KMGT]i?B?)$/i.exec(text.trim()) ?? [];
  const power = " KMGT".indexOf((unit[0] ?? " ").toUpperCase());
  const value = Math.round(Number(digits) * (/^.B$/i.test(unit) ? 1000 : 1024) ** power);
  if (digits === "" || !Number.isSafeInteger(value))
    throw new InvalidArgumentError("expected a number of bytes, as 512MiB or 4GiB");
  return value;
}

/** Layers x width x vocabulary, and before them the version, if it is not that of new models. */
export function shape(text: string): SyntheticModel {
  const [, version = newModels.version, ...numbers] = /^(?:([\d.]+):)?(\d{1,4})x(\d{1,6})x(\d{1,7})$/.exec(text) ?? [];
  const [layers, width, vocabulary] = numbers.map(Number);
  const definition = definitions.find((each) => each.version === version);
  if (!layers || !width || !vocabulary || !definition) {
    const versions = definitions.map((each) => each.version).join(", ");
    throw new InvalidArgumentError(
      `expected layers x width x vocabulary, as 24x1024x50277, perhaps after a version (${versions}) and a colon`,
    );
  }
  try {
    return { name: text, definition, size: definition.newSize({ layers, width, vocabulary }) };
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** Layers, width and vocabulary of a model, as 6x256x4096. */
export function dimensions(text: string): { layers: number; width: number; vocabulary: number } {
  const [layers, width, vocabulary] = /^(\d{1,4})x(\d{1,6})x(\d{1,7})$/.exec(text)?.slice(1).map(Number) ?? [];
  if (layers && width && vocabulary) return { layers, width, vocabulary };
  throw new InvalidArgumentError("expected layers x width x vocabulary, as 6x256x4096");
}

/** Token ids separated by commas. */
export function tokenIds(text: string): number[] {
  return text.split(",").map(wholeNumber(0));
}

/** An adapter: file, file:strength, or file:strength:layers. A file's name may have colons of its own. */
export function loraSource(text: string): LoraSource {
  const [, source = text, strength, layers] = /^(.+?):([-+]?[\d.]+(?:e-?\d+)?)(?::([\d,-]+))?$/i.exec(text) ?? [];
  checkSource(source);
  return {
    source,
    ...(strength !== undefined && { strength: number(Number.NEGATIVE_INFINITY)(strength) }),
    ...(layers !== undefined && { layers: layers.split(",").flatMap(layerRange) }),
  };
}

/** @throws InvalidArgumentError for a file with something behind it that is neither a strength nor layers */
function checkSource(source: string): void {
  if (existsSync(source)) return;
  for (const { index } of source.matchAll(/:/g)) {
    if (!existsSync(source.slice(0, index))) continue;
    const rest = source.slice(index + 1);
    throw new InvalidArgumentError(
      `expected file, file:strength or file:strength:layers, as a.pth:0.5:0-11,15; found "${rest}" after the file`,
    );
  }
}

/** The most layers of a model, far fewer than what a range of numbers may name. */
const maxLayers = 1024;

function layerRange(text: string): number[] {
  const [from = 0, to = from, ...more] = text.split("-").map(wholeNumber(0, maxLayers));
  if (more.length > 0 || to < from) {
    throw new InvalidArgumentError(`expected layers from the lower to the higher, as 0-11,15; found ${text}`);
  }
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

function rangeText(low: number, high: number): string {
  return high >= Number.MAX_SAFE_INTEGER ? `>= ${low}` : `from ${low} to ${high}`;
}

/** The option --dtype of files to be written, by names of types. */
export function convertedTypeOption(types: readonly string[]): Option {
  return new Option("--dtype <type>", "type of floating point tensors (default: as stored)").choices(types);
}

/** The option --dtype. */
export function dtypeOption(description: string): Option {
  return new Option("--dtype <type>", description).choices(weightDTypes);
}

/** The queue of batches. The variable keeps its address, and a password in it, off the command line. */
export function queueOption(description: string): Option {
  return new Option("--queue <url>", description).env("RWKV_QUEUE");
}

/** The name of the queue of batches. */
export function queueNameOption(): Option {
  return new Option(
    "--queue-name <name>",
    "the name of the queue; all its workers have the same model and state",
  ).default("rwkv");
}

/** How a batch is cut for a queue. */
export function shardLinesOption(): Option {
  return new Option("--shard-lines <n>", "lines that a worker of the queue takes at once")
    .argParser(wholeNumber(1, 10_000))
    .default(100);
}

/** The option --state. */
export function stateOption(): Option {
  return new Option("--state <path>", "begin with a saved state, a tuned one of rwkv train, or tuned states (.pth)");
}

/** Values of the options of sampling. */
export interface SamplingFlags extends SamplingOptions {
  preset?: SamplingPresetName;
}

/** Adds the options of sampling that `generate` and `chat` share. */
export function addSamplingOptions(
  command: Command,
  defaults: { temperature: number; topP: number; presencePenalty: number; frequencyPenalty: number },
): Command {
  return command
    .addOption(
      new Option(
        "--preset <name>",
        "options of sampling that are recommended; others beside it replace its own",
      ).choices(Object.keys(samplingPresets)),
    )
    .option(
      "--temperature <t>",
      "flatten (> 1) or sharpen (< 1) the distribution; 0 takes the most probable token",
      number(0, 100),
      defaults.temperature,
    )
    .option(
      "--top-p <p>",
      "keep the most probable tokens up to this cumulative probability; 1 keeps all",
      number(0, 1),
      defaults.topP,
    )
    .option("--top-k <k>", "keep the k most probable tokens; 0 keeps all", wholeNumber(0), 0)
    .option("--min-p <p>", "keep tokens at least this many times as probable as the best; 0 keeps all", number(0, 1), 0)
    .option(
      "--presence-penalty <x>",
      "subtract from the logits of tokens that were generated before (prompt tokens do not count)",
      number(-100, 100),
      defaults.presencePenalty,
    )
    .option(
      "--frequency-penalty <x>",
      "subtract from them for each time they were generated",
      number(-100, 100),
      defaults.frequencyPenalty,
    )
    .option("--penalty-decay <x>", "factor by which counts decay at every token", number(0, 1), 0.996)
    .option("--banned-tokens <ids>", "token ids that are never sampled, separated by commas", tokenIds)
    .option("--logit-bias <id:bias,...>", "add to the logits of tokens", logitBias)
    .option("--seed <n>", "seed of the random generator; the same seed gives the same text", wholeNumber(0));
}

/**
 * The options of sampling among those of a command: what was given, then what the preset says, then the defaults.
 *
 * @param usual the preset where none was given
 */
export function samplingOptions(options: SamplingFlags, command: Command, usual?: SamplingPreset): SamplingOptions {
  const preset = options.preset ? samplingPresets[options.preset] : usual;
  const isDefault = (name: string) => command.getOptionValueSource(name) === "default";
  const recommended = Object.entries(preset ?? {}).filter(([name]) => isDefault(name));
  return givenSampling({ ...options, ...Object.fromEntries(recommended) });
}

function givenSampling(options: SamplingOptions): SamplingOptions {
  const { temperature, topP, topK, minP, presencePenalty, frequencyPenalty, penaltyDecay } = options;
  const { bannedTokens, logitBias, seed } = options;
  const all = {
    temperature,
    topP,
    topK,
    minP,
    presencePenalty,
    frequencyPenalty,
    penaltyDecay,
    bannedTokens,
    logitBias,
    seed,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function logitBias(text: string): Record<number, number> {
  const pairs = text.split(",").map((pair) => {
    const [id = "", bias = ""] = pair.split(":");
    return [wholeNumber(0)(id), number(Number.NEGATIVE_INFINITY)(bias)] as const;
  });
  return Object.fromEntries(pairs);
}
