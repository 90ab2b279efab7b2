// How llama.cpp's GGUF files name and lay out the tensors of RWKV models, against RWKV-LM's own names and layout.
// Sources: llama.cpp, conversion/rwkv.py (what is done to each tensor) and src/models/rwkv6.cpp, rwkv7.cpp.
// One table is walked in both directions: to read files, and to write them.
//
// Shapes here are rows first, as everywhere in this package: the reverse of what GGUF writes.

import type { Checkpoint, Metadata, StoredTensor } from "../checkpoints/checkpoint.js";
import { computed, inElements, scaledByPowerOfTwo } from "../checkpoints/computed-views.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { joined, reshaped, sliced, transposed } from "../checkpoints/views.js";
import { elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";

/** What of the metadata is needed to understand the tensors. */
interface Dimensions {
  readonly headSize: number;
  /** After how many layers the hidden state is halved, and with it what later layers add to it; 0 if never. */
  readonly rescaleEvery: number;
}

/** A tensor as RWKV-LM has it, and where it is in a GGUF file. */
interface Part {
  /** RWKV-LM's name; of a part of a layer without `blocks.<layer>.` */
  readonly official: string;
  /** GGUF's name; of a part of a layer without `blk.<layer>.` */
  readonly stored: string;
  /** What was done to it. By default nothing. */
  readonly layout?: Layout;
  /** Whether it is a large matrix, which gets the type of a file; all others are float32. */
  readonly isMatrix?: true;
}

/**
 * - `transposed`: the last two dimensions are exchanged.
 * - `heads`: [heads, head size] is stored as [width].
 * - `rescaled`: divided by 2 for each time that the hidden state was halved before its layer.
 * - an index and a count: one of several vectors in one tensor.
 */
type Layout = "transposed" | "heads" | "rescaled" | { readonly index: number; readonly count: number };

const outside: readonly Part[] = [
  matrix("emb", "token_embd"),
  ...normed("blocks.0.ln0", "token_embd_norm"),
  ...normed("ln_out", "output_norm"),
  matrix("head", "output"),
];

const inEveryLayer: readonly Part[] = [
  ...normed("ln1", "attn_norm"),
  ...normed("ln2", "attn_norm_2"),
  ...normed("att.ln_x", "time_mix_ln"),
  ...["receptance", "key", "value"].map((name) => matrix(`att.${name}`, `time_mix_${name}`)),
  matrix("ffn.key", "channel_mix_key"),
];

interface Architecture {
  /** The version as its definition names it. */
  readonly version: string;
  readonly layer: readonly Part[];
  /**
   * Tensors of the first layer that nothing is computed from, by what llama.cpp's converter fills their places with. They
   * end in ".weight".
   */
  readonly fillers: Readonly<Record<string, string>>;
  /** Metadata that follow from shapes of official tensors of a layer: the key, the tensor, and its dimension. */
  readonly dimensions: readonly (readonly [key: string, tensor: string, dimension: number])[];
}

const architectures: Readonly<Record<string, Architecture>> = {
  rwkv6: {
    version: "6",
    fillers: {},
    dimensions: [
      ["wkv.head_size", "att.time_faaaa", 1],
      ["time_mix_extra_dim", "att.time_maa_w2", 1],
      ["time_decay_extra_dim", "att.time_decay_w1", 1],
    ],
    layer: [
      ...inEveryLayer,
      { ...matrix("att.output", "time_mix_output"), layout: "rescaled" },
      { ...matrix("ffn.value", "channel_mix_value"), layout: "rescaled" },
      matrix("att.gate", "time_mix_gate"),
      matrix("ffn.receptance", "channel_mix_receptance"),
      { official: "att.time_maa_x", stored: "time_mix_lerp_x.weight" },
      ...fused("att.time_maa_", ["w", "k", "v", "r", "g"]),
      // Before llama.cpp fused them.
      ...["w", "k", "v", "r", "g"].map((name) => ({
        official: `att.time_maa_${name}`,
        stored: `time_mix_lerp_${name}.weight`,
      })),
      { official: "att.time_maa_w1", stored: "time_mix_w1.weight", layout: "transposed" },
      { official: "att.time_maa_w2", stored: "time_mix_w2.weight", layout: "transposed" },
      { official: "att.time_decay", stored: "time_mix_decay.weight" },
      { official: "att.time_decay_w1", stored: "time_mix_decay_w1.weight", layout: "transposed" },
      { official: "att.time_decay_w2", stored: "time_mix_decay_w2.weight", layout: "transposed" },
      { official: "att.time_faaaa", stored: "time_mix_first.weight" },
      { official: "ffn.time_maa_k", stored: "channel_mix_lerp_k.weight" },
      { official: "ffn.time_maa_r", stored: "channel_mix_lerp_r.weight" },
    ],
  },
  rwkv7: {
    version: "7",
    fillers: { time_mix_v0: "att.a0", time_mix_v1: "att.a1", time_mix_v2: "att.a2" },
    dimensions: [
      ["wkv.head_size", "att.r_k", 1],
      ["attention.decay_lora_rank", "att.w1", 1],
      ["attention.iclr_lora_rank", "att.a1", 1],
      ["attention.value_residual_mix_lora_rank", "att.v1", 1],
      ["attention.gate_lora_rank", "att.g1", 1],
    ],
    layer: [
      ...inEveryLayer,
      matrix("att.output", "time_mix_output"),
      matrix("ffn.value", "channel_mix_value"),
      ...fused("att.x_", ["r", "w", "k", "v", "a", "g"]),
      ...["w", "a", "v"].map((name) => ({ official: `att.${name}0`, stored: `time_mix_${name}0.weight` })),
      ...["w", "a", "v", "g"].flatMap((name) =>
        [1, 2].map(
          (half): Part => ({
            official: `att.${name}${half}`,
            stored: `time_mix_${name}${half}.weight`,
            layout: "transposed",
          }),
        ),
      ),
      { official: "att.k_k", stored: "time_mix_k_k.weight" },
      { official: "att.k_a", stored: "time_mix_k_a.weight" },
      { official: "att.r_k", stored: "time_mix_r_k.weight", layout: "heads" },
      { official: "ffn.x_k", stored: "channel_mix_lerp_k.weight" },
    ],
  },
};

/** Architectures that share something with RWKV, but are others. */
const related: Readonly<Record<string, string>> = {
  rwkv6qwen2: "RWKV-6 attention in a Qwen 2 model (QRWKV)",
  arwkv7: "RWKV-7 attention in a Qwen 2 model (ARWKV)",
};

function matrix(official: string, stored: string): Part {
  return { official: `${official}.weight`, stored: `${stored}.weight`, isMatrix: true };
}

function normed(official: string, stored: string): Part[] {
  return ["weight", "bias"].map((name) => ({ official: `${official}.${name}`, stored: `${stored}.${name}` }));
}

function fused(prefix: string, names: readonly string[]): Part[] {
  return names.map((name, index) => ({
    official: prefix + name,
    stored: "time_mix_lerp_fused.weight",
    layout: { index, count: names.length },
  }));
}

/**
 * The model of a GGUF file under RWKV-LM's names, as views of its tensors; tensors that RWKV-LM has no name for keep theirs.
 *
 * @throws CheckpointError for a model of another architecture, or metadata or shapes that do not fit it
 */
export function officialTensorsOfGguf(checkpoint: Checkpoint): Checkpoint {
  const { name: file, tensors: stored, metadata } = checkpoint;
  const text = (key: string) => (Object.hasOwn(metadata, key) ? metadata[key] : undefined);
  const { name, architecture } = architectureIn(metadata);
  if (!architecture) throw new CheckpointError(file, describeArchitecture(name));
  const whole = (key: string, otherwise: number) => {
    const value = Number(text(`${name}.${key}`) ?? otherwise);
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new CheckpointError(
      file,
      `metadata ${name}.${key}: expected a whole number, found ${text(`${name}.${key}`)}`,
    );
  };
  const dimensions = { headSize: whole("wkv.head_size", 64), rescaleEvery: whole("rescale_every_n_layers", 0) };

  const tensors = new Map<string, StoredTensor>();
  const used = new Set<string>();
  const take = (official: string, storedName: string, layout: Layout | undefined, layer: number) => {
    const tensor = stored.get(storedName);
    if (!tensor) return;
    used.add(storedName);
    tensors.set(official, { ...officialView(file, tensor, layout, layer, dimensions), name: official });
  };
  for (const part of outside) take(part.official, part.stored, undefined, 0);
  const layers = layersIn(stored.keys(), /^blk\.(\d{1,4})\./);
  for (let layer = 0; layer < layers; layer++) {
    for (const part of architecture.layer) {
      if (layer === 0 && isFiller(architecture, part)) used.add(`blk.0.${part.stored}`);
      else take(`blocks.${layer}.${part.official}`, `blk.${layer}.${part.stored}`, part.layout, layer);
    }
  }
  for (const [storedName, tensor] of stored) if (!used.has(storedName)) tensors.set(storedName, tensor);
  return { ...checkpoint, tensors, metadata: officialMetadata(metadata, name) };
}

/** What a GGUF file with these metadata calls a tensor of RWKV-LM's; undefined where it has no such tensor. */
export function ggufNameOf(official: string, metadata: Metadata): string | undefined {
  const [, layer, name] = /^blocks\.(\d+)\.(.*)$/.exec(official) ?? [];
  const whole = outside.find((part) => part.official === official);
  if (whole) return whole.stored;
  const inLayer = architectureIn(metadata).architecture?.layer.find((part) => part.official === name);
  return inLayer && `blk.${layer}.${inLayer.stored}`;
}

function architectureIn(metadata: Metadata): { name: string; architecture: Architecture | undefined } {
  const key = "general.architecture";
  const name = (Object.hasOwn(metadata, key) ? metadata[key] : undefined) ?? "none";
  return { name, architecture: Object.hasOwn(architectures, name) ? architectures[name] : undefined };
}

function isFiller({ fillers }: Architecture, { stored }: Part): boolean {
  return Object.hasOwn(fillers, stored.replace(".weight", ""));
}

function describeArchitecture(name: string): string {
  if (Object.hasOwn(related, name)) return `this is ${related[name]}, which this version of the package does not run`;
  return `this is a model of the architecture ${name.slice(0, 60)}, not RWKV; expected ${Object.keys(architectures).join(" or ")}`;
}

const maxLayers = 1024;

function layersIn(names: Iterable<string>, mark: RegExp): number {
  let layers = 0;
  for (const name of names) layers = Math.max(layers, Number(mark.exec(name)?.[1] ?? -1) + 1);
  return Math.min(layers, maxLayers);
}

/** @throws CheckpointError where the tensor has not the dimensions that its layout needs */
function officialView(
  file: string,
  tensor: StoredTensor,
  layout: Layout | undefined,
  layer: number,
  { headSize, rescaleEvery: every }: Dimensions,
): StoredTensor {
  const { shape } = tensor;
  const wrong = (expected: string) =>
    new CheckpointError(file, `tensor ${tensor.name}: expected ${expected}, found [${shape.join(", ")}]`);
  if (layout === undefined) return tensor;
  if (layout === "transposed") {
    if (shape.length < 2) throw wrong("a matrix");
    return transposed(inElements(tensor));
  }
  if (layout === "rescaled") {
    return scaledByPowerOfTwo(tensor, every === 0 ? 0 : Math.floor(layer / every));
  }
  if (layout === "heads") {
    const width = elementCount(shape);
    if (headSize === 0 || width % headSize !== 0) throw wrong(`a multiple of the head size ${headSize}`);
    return reshaped(inElements(tensor), [width / headSize, headSize]);
  }
  if (shape.length < 2 || shape[0] !== layout.count) throw wrong(`${layout.count} vectors`);
  const vectors = inElements(tensor);
  const vector = sliced(vectors, 0, layout.index, layout.index + 1);
  return { ...vector, shape: vector.shape.slice(1), strides: vector.strides.slice(1) };
}

/**
 * Keys about the container, its architecture or vocabulary, which mean nothing beside RWKV-LM's tensors. The template of
 * conversations stays: it tells how the model was taught to answer.
 */
const ofContainer =
  /^(general\.(architecture|alignment|file_type|quantization_version|quantized_by|size_label|type)|tokenizer\.(?!chat_template$)|split\.)/;

function officialMetadata(metadata: Metadata, architecture: string): Metadata {
  const kept = Object.entries(metadata).filter(
    ([key]) => !ofContainer.test(key) && !key.startsWith(`${architecture}.`),
  );
  const epsilon = metadata[`${architecture}.attention.layer_norm_epsilon`];
  return { ...Object.fromEntries(kept), ...(epsilon !== undefined && { "rwkv.layer_norm_epsilon": epsilon }) };
}

/** A tensor to be written. */
export interface GgufTensor {
  readonly name: string;
  /** In float32 or as it is stored. */
  readonly tensor: StoredTensor;
  /** Whether it gets the type of the file; others are float32. */
  readonly isMatrix: boolean;
}

/** A model as a GGUF file has it. */
export interface GgufModel {
  readonly architecture: string;
  /** Whole numbers of its metadata, by keys that come behind the architecture and a dot. */
  readonly numbers: Readonly<Record<string, number>>;
  readonly tensors: readonly GgufTensor[];
  /** Tensors that llama.cpp's files have no place for, by RWKV-LM's names: without them it would be another model. */
  readonly unplaced: readonly string[];
}

/** What llama.cpp's converter says where the model does not: as many tokens as anyone wants. */
const contextLength = 2 ** 20;
/** RWKV-6 is written with its hidden state halved after as many layers, as its authors' configuration says. */
const rescaleEvery = 6;

/**
 * A model as llama.cpp's converter writes it.
 *
 * @param version of its definition
 * @param official its tensors by RWKV-LM's names
 * @returns undefined for a version that llama.cpp does not have
 */
export function ggufModelOf(version: string, official: ReadonlyMap<string, StoredTensor>): GgufModel | undefined {
  const [name, architecture] = Object.entries(architectures).find(([, each]) => each.version === version) ?? [];
  if (name === undefined || !architecture) return undefined;
  const layers = layersIn(official.keys(), /^blocks\.(\d{1,4})\./);
  const tensors: GgufTensor[] = [];
  const unplaced = new Set(official.keys());
  const put = (stored: string, tensor: StoredTensor, part?: Part) =>
    void tensors.push({ name: stored, tensor, isMatrix: part?.isMatrix === true });
  for (const part of outside) {
    const tensor = official.get(part.official);
    if (!tensor) continue;
    put(part.stored, tensor, part);
    unplaced.delete(part.official);
  }
  for (let layer = 0; layer < layers; layer++) {
    const inLayer = (part: string) => official.get(`blocks.${layer}.${part}`);
    const done = new Set<string>();
    for (const part of architecture.layer) {
      const tensor = inLayer(part.official);
      if (!tensor || done.has(part.official) || (layer === 0 && isFiller(architecture, part))) continue;
      const { layout } = part;
      const together =
        typeof layout === "object" ? architecture.layer.filter(({ stored }) => stored === part.stored) : [part];
      for (const each of together) {
        done.add(each.official);
        unplaced.delete(`blocks.${layer}.${each.official}`);
      }
      const vectors = together.map((each) => inLayer(each.official) as StoredTensor);
      put(`blk.${layer}.${part.stored}`, storedForm(vectors, layout, layer), part);
    }
    for (const [stored, source] of layer === 0 ? Object.entries(architecture.fillers) : []) {
      const tensor = inLayer(source);
      if (tensor)
        put(`blk.0.${stored}.weight`, tensor.shape.length === 2 ? transposed(inElements(tensor)) : squeezed(tensor));
    }
  }
  const sizeOf = (tensor: string, dimension: number) => official.get(tensor)?.shape.at(dimension) ?? 0;
  const numbers: Record<string, number> = {
    context_length: contextLength,
    embedding_length: sizeOf("emb.weight", 1),
    block_count: layers,
    feed_forward_length: sizeOf("blocks.0.ffn.key.weight", 0),
    "attention.head_count": 0, // there are no heads of the kind that llama.cpp means
  };
  for (const [key, source, dimension] of architecture.dimensions) {
    // Of the last layer, since the first has no part of the residual of values.
    numbers[key] = sizeOf(`blocks.${layers - 1}.${source}`, dimension);
  }
  if (architecture.layer.some(({ layout }) => layout === "rescaled")) numbers["rescale_every_n_layers"] = rescaleEvery;
  return { architecture: name, numbers, tensors, unplaced: [...unplaced] };
}

/** What `officialView` undoes. */
function storedForm(tensors: readonly StoredTensor[], layout: Layout | undefined, layer: number): StoredTensor {
  const [tensor] = tensors as [StoredTensor];
  if (layout === undefined) return tensor.shape.length === 2 ? tensor : squeezed(tensor);
  if (layout === "transposed") return transposed(inElements(tensor));
  if (layout === "rescaled") return scaledByPowerOfTwo(tensor, -Math.floor(layer / rescaleEvery));
  if (layout === "heads") return reshaped(inElements(tensor), [elementCount(tensor.shape)]);
  const vectors = tensors.map((each) => {
    const values = computed(each, () => readFloat32(each));
    return reshaped(values, [1, 1, 1, elementCount(each.shape)]);
  });
  return joined(vectors);
}

/** A vector without dimensions of 1. */
function squeezed(tensor: StoredTensor): StoredTensor {
  return reshaped(inElements(tensor), [elementCount(tensor.shape)]);
}
