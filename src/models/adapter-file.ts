// Reads the files of adapters that others trained, and our own training: low-rank products for matrices of a model (LoRA), and weights
// that were trained beside them. Only directories are read here.
//
// - RWKV-PEFT before October 2025, .pth: blocks.0.att.key.lora_A and .lora_B, beside norms and decays where those were trained;
//   nothing tells alpha.
// - Hugging Face's PEFT, and RWKV-PEFT since, a folder: adapter_model.safetensors with base_model.model.<module>.lora_A.weight, and
//   adapter_config.json, which tells alpha and rank.
// - `rwkv train --lora`: adapter.safetensors in the folder of the run, whose metadata tell alpha, and the version and fingerprint
//   of the model.
// - PiSSA of RWKV-PEFT: a file as the first, and init_pissa.pth with .init_lora_A and .init_lora_B, which are taken away.
// - Bone, later DiSHA, of RWKV-PEFT: blocks.0.att.key.bone [rank, outputs], added to every block of `rank` inputs; that is a product
//   whose A is the identity again and again.

import { basename, dirname, fileSize, join, listFolder, readText } from "#platform/files";
import type { Checkpoint, StoredTensor } from "../checkpoints/checkpoint.js";
import { type CheckpointInput, isPath, resolveInput } from "../checkpoints/checkpoint-input.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { transposed } from "../checkpoints/views.js";
import { isFloating } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { nameInModel } from "./tensor-names.js";

/** A product B A for a module of the model. */
export interface StoredProduct {
  /** A: [rank, inputs]; where it is absent, 1 at [i % rank, i] for each input i. */
  readonly down?: StoredTensor;
  /** B: [outputs, rank] */
  readonly up: StoredTensor;
}

/** An open file of an adapter. */
export interface AdapterFile {
  readonly name: string;
  /** By the name of the module in the file, without wrappers: "blocks.0.att.key". */
  readonly products: ReadonlyMap<string, StoredProduct>;
  /** Tensors that take the place of the model's, by their names in the file without wrappers. */
  readonly replaced: ReadonlyMap<string, StoredTensor>;
  /** What the products of this rank are multiplied by; undefined where the file does not tell. */
  scaleOf(rank: number): number | undefined;
  /** The model that it was learned beside, as far as the file tells: as our own training writes it. */
  readonly learnedBeside: {
    readonly version: string | undefined;
    /** By `fingerprintOf`, in decimal digits. */
    readonly fingerprint: string | undefined;
  };
  close(): Promise<void>;
}

/** Metadata in which our own training tells alpha, and the version and the fingerprint of the model that it learned beside. */
export const alphaEntry = "lora_alpha";
export const versionEntry = "rwkv_version";
export const fingerprintEntry = "base_fingerprint";

/** What our own training calls its file. */
export const ownAdapterName = "adapter.safetensors";
const configName = "adapter_config.json";
/** Files that a configuration may lie beside. */
const configuredFiles = ["adapter_model.safetensors", "adapter_model.bin"];
/** In a folder the first of these that is there is the adapter. */
const folderFiles = [ownAdapterName, ...configuredFiles];
const maxConfigSize = 2 ** 20;

/** Other kinds of adapters, by the names of their tensors. */
const otherKinds: readonly (readonly [mark: RegExp, description: string])[] = [
  [/\.miss_block\b/, "a MiSS adapter of Hugging Face's PEFT"],
  [/\.lora_magnitude_vector\b/, "a DoRA adapter"],
  [/\.lora_embedding_[AB]\b/, "low-rank products for an embedding"],
  [/\.lora\.[01]$/, "an adapter in the layout of web-rwkv"],
];

/**
 * Opens the file of an adapter, or a folder with one.
 *
 * @throws CheckpointError when it cannot be read, is no adapter, or one of a kind that cannot be applied; OptionError for an input that
 *   is none
 */
export async function openAdapter(input: CheckpointInput): Promise<AdapterFile> {
  const path = isPath(input) ? resolveInput(input) : input;
  const place = typeof path === "string" ? await fileIn(path) : undefined;
  const checkpoint = await openCheckpoint(place?.file ?? input);
  try {
    const config = place && (await configOf(place.config));
    if (config) checkConfig(place.config, config);
    const { kind, products, replaced } = partsOf(checkpoint);
    const { [versionEntry]: version, [fingerprintEntry]: fingerprint } = checkpoint.metadata;
    return {
      name: checkpoint.name,
      products,
      replaced,
      scaleOf: kind === "lora" ? scaling(checkpoint, place?.config, config) : () => (kind === "initial" ? -1 : 1),
      learnedBeside: { version, fingerprint },
      close: () => checkpoint.close(),
    };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** The file with the tensors, and where its configuration would be, if it may have one. */
async function fileIn(path: string): Promise<{ file: string; config: string }> {
  const names = await listFolder(path, [...folderFiles, configName]);
  const found = names ? folderFiles.find((name) => names.includes(name)) : basename(path);
  const folder = names ? path : dirname(path);
  const isConfigured = found === undefined || configuredFiles.includes(found);
  return {
    file: names && found !== undefined ? join(path, found) : path,
    config: isConfigured ? join(folder, configName) : "",
  };
}

async function configOf(path: string): Promise<Record<string, unknown> | undefined> {
  const size = path === "" ? undefined : await fileSize(path);
  if (size === undefined) return undefined;
  if (size > maxConfigSize) throw new CheckpointError(path, `expected at most ${maxConfigSize} bytes of JSON`);
  let value: unknown;
  try {
    value = JSON.parse(await readText(path));
  } catch (cause) {
    throw new CheckpointError(path, "not valid JSON", { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CheckpointError(path, "expected a JSON object");
  }
  return value as Record<string, unknown>;
}

/** @throws CheckpointError for what changes how products are applied, and is not done here */
function checkConfig(path: string, config: Record<string, unknown>): void {
  const { peft_type: type = "LORA", alpha_pattern: pattern } = config;
  if (type !== "LORA") {
    const found = typeof type === "string" ? type.slice(0, 40) : typeof type;
    throw new CheckpointError(path, `expected an adapter of peft_type LORA, found ${found}, which cannot be applied`);
  }
  for (const name of ["use_dora", "fan_in_fan_out", "lora_bias"]) {
    if (config[name] === true) throw new CheckpointError(path, `${name} is true, which cannot be applied`);
  }
  if (typeof pattern === "object" && pattern !== null && Object.keys(pattern).length > 0) {
    throw new CheckpointError(path, "alpha_pattern gives modules different alphas, which cannot be applied");
  }
}

/** alpha / rank; with rank-stabilized LoRA (arXiv 2312.03732) alpha / sqrt(rank). */
function scaling(
  { name, metadata }: Checkpoint,
  configPath: string | undefined,
  config: Record<string, unknown> | undefined,
): AdapterFile["scaleOf"] {
  const entry = metadata[alphaEntry];
  const told = config?.["lora_alpha"] ?? (entry === undefined || entry.trim() === "" ? entry : Number(entry));
  if (told === undefined) return () => undefined;
  if (typeof told !== "number" || !Number.isFinite(told)) {
    throw new CheckpointError(config ? (configPath as string) : name, "lora_alpha: expected a number");
  }
  const isStabilized = config?.["use_rslora"] === true;
  return (rank) => told / (isStabilized ? Math.sqrt(rank) : rank);
}

/** The kinds of products, by the names of their tensors: LoRA, the initial values of PiSSA, and Bone. */
type Kind = "lora" | "initial" | "bone";

function partsOf(checkpoint: Checkpoint): Pick<AdapterFile, "products" | "replaced"> & { readonly kind: Kind } {
  const halves = new Map<string, { A?: StoredTensor; B?: StoredTensor }>();
  const products = new Map<string, StoredProduct>();
  const replaced = new Map<string, StoredTensor>();
  const kinds = new Set<Kind>();
  const refuse = (problem: string) => new CheckpointError(checkpoint.name, problem);
  for (const [stored, tensor] of checkpoint.tensors) {
    const other = otherKinds.find(([mark]) => mark.test(stored));
    if (other) throw refuse(`this holds ${other[1]}, which cannot be applied (tensor ${stored.slice(0, 200)})`);
    if (!isFloating(tensor.dtype)) throw refuse(`tensor ${stored}: expected floating point, found ${tensor.dtype}`);
    const name = nameInModel(stored);
    const [, module, initial, half] = /^(.+)\.(init_)?lora_([AB])(?:\.default)?(?:\.weight)?$/.exec(name) ?? [];
    const [, block] = /^(.+)\.(?:bone|disha)$/.exec(name) ?? [];
    if (module !== undefined) {
      kinds.add(initial ? "initial" : "lora");
      const pair = halves.get(module) ?? {};
      if (pair[half as "A" | "B"]) throw refuse(`two tensors stand for ${module}.lora_${half}`);
      pair[half as "A" | "B"] = tensor;
      halves.set(module, pair);
    } else if (block !== undefined) {
      kinds.add("bone");
      if (tensor.shape.length !== 2) {
        throw refuse(
          `${stored}: expected shape [rank, outputs], found [${tensor.shape.join(", ")}]; Bat cannot be applied`,
        );
      }
      if (products.has(block)) throw refuse(`two tensors stand for ${block}.bone`);
      products.set(block, { up: transposed(tensor) });
    } else replaced.set(name, tensor);
  }
  for (const [module, { A: down, B: up }] of halves) {
    if (!down || !up) throw refuse(`${module}: expected lora_A and lora_B, found only lora_${down ? "A" : "B"}`);
    products.set(module, { down, up });
  }
  const [kind, another] = kinds;
  if (!kind) throw refuse("expected an adapter with tensors named .lora_A and .lora_B, or .bone, found none");
  if (another) throw refuse("expected products of one kind, found several (LoRA, initial values of PiSSA, Bone)");
  return { kind, products, replaced };
}
