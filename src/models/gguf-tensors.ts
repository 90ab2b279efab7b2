// How llama.cpp's GGUF files name and lay out the tensors of RWKV models, against RWKV-LM's own names and layout.
// Sources: llama.cpp, conversion/rwkv.py (what is done to each tensor) and src/models/rwkv6.cpp, rwkv7.cpp.
//
// Shapes here are rows first, as everywhere in this package: the reverse of what GGUF writes.

import type { Checkpoint, Metadata, StoredTensor } from "../checkpoints/checkpoint.js";
import { inElements, scaledByPowerOfTwo } from "../checkpoints/computed-views.js";
import { reshaped, sliced, transposed } from "../checkpoints/views.js";
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
}

/**
 * - `transposed`: the last two dimensions are exchanged.
 * - `heads`: [heads, head size] is stored as [width].
 * - `rescaled`: divided by 2 for each time that the hidden state was halved before its layer.
 * - an index and a count: one of several vectors in one tensor.
 */
type Layout = "transposed" | "heads" | "rescaled" | { readonly index: number; readonly count: number };

const outside: readonly Part[] = [
  { official: "emb.weight", stored: "token_embd.weight" },
  ...normed("blocks.0.ln0", "token_embd_norm"),
  ...normed("ln_out", "output_norm"),
  { official: "head.weight", stored: "output.weight" },
];

const inEveryLayer: readonly Part[] = [
  ...normed("ln1", "attn_norm"),
  ...normed("ln2", "attn_norm_2"),
  ...normed("att.ln_x", "time_mix_ln"),
  ...["receptance", "key", "value"].map((name) => matrix(`att.${name}`, `time_mix_${name}`)),
  matrix("ffn.key", "channel_mix_key"),
];

interface Architecture {
  readonly layer: readonly Part[];
  /** Tensors of the first layer that nothing is computed from: they fill places that llama.cpp expects. */
  readonly fillers: readonly string[];
}

const architectures: Readonly<Record<string, Architecture>> = {
  rwkv6: {
    fillers: [],
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
    fillers: ["time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight"],
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
  return { official: `${official}.weight`, stored: `${stored}.weight` };
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
  const name = text("general.architecture") ?? "none";
  const architecture = Object.hasOwn(architectures, name) ? architectures[name] : undefined;
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
  for (let layer = 0; layer < layersIn(stored.keys()); layer++) {
    for (const part of architecture.layer) {
      if (layer === 0 && architecture.fillers.includes(part.stored)) used.add(`blk.0.${part.stored}`);
      else take(`blocks.${layer}.${part.official}`, `blk.${layer}.${part.stored}`, part.layout, layer);
    }
  }
  for (const [storedName, tensor] of stored) if (!used.has(storedName)) tensors.set(storedName, tensor);
  return { ...checkpoint, tensors, metadata: officialMetadata(metadata, name) };
}

function describeArchitecture(name: string): string {
  if (Object.hasOwn(related, name)) return `this is ${related[name]}, which this version of the package does not run`;
  return `this is a model of the architecture ${name.slice(0, 60)}, not RWKV; expected ${Object.keys(architectures).join(" or ")}`;
}

const maxLayers = 1024;

function layersIn(names: Iterable<string>): number {
  let layers = 0;
  for (const name of names) layers = Math.max(layers, Number(/^blk\.(\d{1,4})\./.exec(name)?.[1] ?? -1) + 1);
  return Math.min(layers, maxLayers);
}

/** @throws CheckpointError where the tensor has not the dimensions that its layout needs */
function officialView(
  file: string,
  tensor: StoredTensor,
  layout: Layout | undefined,
  layer: number,
  { headSize, rescaleEvery }: Dimensions,
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
    return scaledByPowerOfTwo(tensor, rescaleEvery === 0 ? 0 : Math.floor(layer / rescaleEvery));
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

/** Keys about the container, its architecture or vocabulary, which mean nothing beside RWKV-LM's tensors. */
const ofContainer =
  /^(general\.(architecture|alignment|file_type|quantization_version|quantized_by|size_label|type)|tokenizer\.|split\.)/;

function officialMetadata(metadata: Metadata, architecture: string): Metadata {
  const kept = Object.entries(metadata).filter(
    ([key]) => !ofContainer.test(key) && !key.startsWith(`${architecture}.`),
  );
  const epsilon = metadata[`${architecture}.attention.layer_norm_epsilon`];
  return { ...Object.fromEntries(kept), ...(epsilon !== undefined && { "rwkv.layer_norm_epsilon": epsilon }) };
}
