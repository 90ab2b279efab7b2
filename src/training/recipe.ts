// Everything that the result of a run depends on: made from the options when the run starts, kept in its training.json, and
// checked by the same table in both cases.

import { resolve } from "node:path";
import type { FloatType } from "../dtypes.js";
import { OptionError, TrainingError } from "../errors.js";
import { definitionOf, definitions, firstVersion, newModels } from "../models/definitions.js";
import type { NewModelSize } from "../models/model-definition.js";
import { isNamedTokenizer } from "../tokenizers/open-tokenizer.js";
import { between, type Check, flag, oneOf, orNull, path, smallest, whole } from "./checks.js";
import type { LoraOptions, TrainOptions } from "./options.js";

/** Low-rank adaptation as a recipe has it. */
export interface LoraRecipe extends Required<Omit<LoraOptions, "matrices">> {
  /** null until the base model tells which its version has. */
  readonly matrices: readonly string[] | null;
}

/** Everything that the result of a run depends on, beside the data. */
export interface Recipe {
  /** Where the base model lay, as an absolute path. */
  readonly from: string | null;
  /** Tells it from others; null in runs that were begun before there was one. */
  readonly baseFingerprint: number | null;
  /** Where the tokenizer came from; a copy is in the run's folder. */
  readonly tokenizer: string | null;
  /** RWKV version of the model; this and its sizes are those of the base model where there is one. */
  readonly version: string;
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly batch: number;
  /** Either these or epochs. */
  readonly steps: number | null;
  readonly epochs: number | null;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly decay: "cosine" | "exponential";
  readonly warmup: number | null;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly maxGradientNorm: number;
  readonly logitPenalty: number;
  readonly dropout: number;
  readonly seed: number;
  readonly lora: LoraRecipe | null;
  readonly tuneState: boolean;
  readonly carryState: boolean;
  readonly checkpointing: boolean;
  readonly validation: number;
  readonly dtype: FloatType;
}

const checks: { readonly [Name in keyof Recipe]: Check } = {
  from: orNull(path),
  baseFingerprint: orNull(whole(0, 2 ** 32 - 1)),
  tokenizer: orNull(path),
  version: oneOf(...definitions.map(({ version }) => version)),
  layers: whole(1, 1024),
  width: whole(1, 65536),
  hidden: whole(1, 262144),
  vocabulary: whole(1, 2 ** 20),
  context: whole(1, 2 ** 20),
  batch: whole(1, 65536),
  steps: orNull(whole(1, 2 ** 31)),
  epochs: orNull(between(smallest, 1e6)),
  learningRate: between(smallest, 10),
  finalLearningRate: between(smallest, 10),
  decay: oneOf("cosine", "exponential"),
  warmup: orNull(whole(0, 2 ** 31)),
  weightDecay: between(0, 100),
  beta1: between(0, 0.9999999),
  beta2: between(0, 0.9999999),
  maxGradientNorm: between(smallest, Number.MAX_VALUE),
  logitPenalty: between(0, 1),
  dropout: between(0, 0.9),
  seed: whole(0, 2 ** 32 - 1),
  lora: orNull((value) => (isObject(value) ? undefined : "an object with rank, alpha and matrices")),
  tuneState: flag,
  carryState: flag,
  checkpointing: flag,
  validation: between(0, 0.5),
  dtype: oneOf("f32", "f16", "bf16"),
};

/** That of a tokenizer which is trained: every byte is a token, and one is something else. */
const trainedVocabulary = whole(257, 2 ** 20);

const loraChecks: { readonly [Name in keyof LoraRecipe]: Check } = {
  rank: whole(1, 65536),
  alpha: between(smallest, Number.MAX_VALUE),
  matrices: orNull((value) =>
    Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === "string")
      ? undefined
      : "some of the layers' matrices, by the endings of their names",
  ),
};

/** What a field of a recipe, or a field of its `lora`, should be and is not. */
interface Fault {
  readonly name: string;
  readonly value: unknown;
  readonly expected: string;
}

/**
 * The recipe by the options alone. The version and sizes are those of a new model; a base model says its own.
 *
 * @throws OptionError for a value outside its range, or options that exclude each other
 */
export function recipeOf(options: TrainOptions): Recipe {
  const { from, lora, tuneState = false, layers = 6, width = 256, vocabulary = 4096 } = options;
  for (const [name, needed] of [
    ["lora", lora !== undefined],
    ["tuneState", tuneState],
  ] as const) {
    if (needed && from === undefined) throw new OptionError(name, true, "a checkpoint to start from (from)");
  }
  const { version = newModels.version } = options;
  const notRun = checks.version(version);
  if (notRun !== undefined) throw new OptionError("version", version, notRun);
  const learningRate = options.learningRate ?? (tuneState ? 1e-2 : from === undefined ? 8e-4 : 1e-4);
  const rank = lora?.rank ?? 8;
  const recipe: Recipe = {
    from: absolute(from),
    baseFingerprint: null,
    tokenizer:
      options.tokenizer !== undefined && isNamedTokenizer(options.tokenizer)
        ? options.tokenizer
        : absolute(options.tokenizer),
    version,
    layers,
    width,
    hidden: options.hidden ?? (from === undefined ? newHidden(version, { layers, width, vocabulary }) : 4 * width),
    vocabulary,
    context: options.context ?? 256,
    batch: options.batch ?? 16,
    steps: options.steps ?? null,
    epochs: options.steps === undefined ? (options.epochs ?? 1) : null,
    learningRate,
    finalLearningRate: options.finalLearningRate ?? learningRate / 10,
    decay: options.decay ?? "cosine",
    warmup: options.warmup ?? null,
    weightDecay: options.weightDecay ?? 0.01,
    beta1: options.beta1 ?? 0.9,
    beta2: options.beta2 ?? 0.99,
    maxGradientNorm: options.maxGradientNorm ?? 1,
    logitPenalty: options.logitPenalty ?? 1e-4,
    dropout: options.dropout ?? 0,
    seed: options.seed ?? 1,
    lora: lora ? { rank, alpha: lora.alpha ?? 2 * rank, matrices: lora.matrices ?? null } : null,
    tuneState,
    carryState: options.carryState ?? false,
    checkpointing: options.checkpointing ?? false,
    validation: options.validation ?? 0.05,
    dtype: options.dtype ?? "f32",
  };
  const fault = faultOf(recipe);
  if (fault) throw new OptionError(fault.name, fault.value, fault.expected);
  return recipe;
}

function newHidden(version: string, size: NewModelSize): number {
  return definitionOf(version).newSize(size).hidden;
}

/** The path from the root; what is no path is left for the check to refuse. */
export function absolute(given: string | undefined): string | null {
  return typeof given === "string" && given !== "" ? resolve(given) : (given ?? null);
}

/**
 * The recipe in a run's training.json.
 *
 * @throws TrainingError for what is none: damaged, of another version, or made up
 */
export function parseRecipe(file: string, text: string): Recipe {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TrainingError(`${file}: not valid JSON`, { cause });
  }
  if (!isObject(value)) throw new TrainingError(`${file}: expected an object with the options of a run`);
  const fields: Record<string, unknown> = { baseFingerprint: null, version: firstVersion, ...value };
  const fault = faultOf(fields);
  if (!fault) return Object.fromEntries(Object.keys(checks).map((name) => [name, fields[name]])) as unknown as Recipe;
  const found = fault.value === undefined ? "none" : shortened(JSON.stringify(fault.value));
  throw new TrainingError(`${file}: ${shortened(fault.name)}: expected ${fault.expected}, found ${found}`);
}

function faultOf(fields: object): Fault | undefined {
  const values = fields as Record<string, unknown>;
  const fault = faultIn(values, checks);
  if (fault) return fault;
  const { lora, tuneState, from, vocabulary, steps, epochs } = values as unknown as Recipe;
  const tooSmall = from === null ? trainedVocabulary(vocabulary) : undefined;
  if (tooSmall !== undefined) return { name: "vocabulary", value: vocabulary, expected: tooSmall };
  if (lora) {
    const within = faultIn(lora as unknown as Record<string, unknown>, loraChecks);
    if (within) return { ...within, name: `lora.${within.name}` };
  }
  if (lora && tuneState) return { name: "lora", value: lora, expected: "either lora or tuneState" };
  if ((lora || tuneState) && from === null)
    return { name: "from", value: from, expected: "a checkpoint to start from" };
  if ((steps === null) === (epochs === null))
    return { name: "epochs", value: epochs, expected: "either steps or epochs" };
  return undefined;
}

function faultIn(values: Record<string, unknown>, table: Readonly<Record<string, Check>>): Fault | undefined {
  for (const [name, check] of Object.entries(table)) {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    const expected = check(value);
    if (expected !== undefined) return { name, value, expected };
  }
  const unknown = Object.keys(values).find((name) => !Object.hasOwn(table, name));
  return unknown === undefined ? undefined : { name: unknown, value: values[unknown], expected: "no such field" };
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
