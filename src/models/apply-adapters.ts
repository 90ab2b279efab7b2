// Puts adapters onto a model that is being loaded. Their products are computed beside those of the model's matrices rather than added
// to its weights: so a mapped file stays mapped and shared between processes, a quantized matrix is not quantized again, and loading
// takes no longer. Several adapters of one matrix are one product, whose rank is the sum of theirs.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { storedTensor } from "../checkpoints/memory-tensor.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { type FloatType, isFloatType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { callsOf, topologicalOrder, type WeightNode } from "../graph/graph.js";
import { type LowRankProduct, withLowRankProducts } from "../graph/low-rank.js";
import { matmul } from "../graph/operations/matmul.js";
import type { AdapterFile, StoredProduct } from "./adapter-file.js";
import type { BoundModel, RecognisedModel } from "./versions.js";

/** An adapter, and how it is to be applied. */
export interface AppliedAdapter {
  readonly file: AdapterFile;
  /** What its products are multiplied by, beside alpha / rank. */
  readonly strength: number;
  /** The layers that it is applied to, from 0; all by default, and what belongs to no layer. */
  readonly layers?: ReadonlySet<number> | undefined;
}

/** A product for a weight, and what it is multiplied by. */
interface Part extends StoredProduct {
  readonly rank: number;
  readonly factor: number;
}

/**
 * A model with adapters.
 *
 * @throws CheckpointError where an adapter is for another version, or has parts that the model has not, or of other shapes
 */
export async function withAdapters(model: RecognisedModel, adapters: readonly AppliedAdapter[]): Promise<BoundModel> {
  const parts = new Map<WeightNode, Part[]>();
  const tensors = new Map(model.tensors);
  for (const adapter of adapters) {
    const { name, learnedBeside } = adapter.file;
    if (learnedBeside.version !== undefined && learnedBeside.version !== model.version) {
      const found = learnedBeside.version.slice(0, 40);
      throw new CheckpointError(name, `expected an adapter for RWKV-${model.version}, found one for RWKV-${found}`);
    }
    const target = new Targets(model, adapter.file);
    for (const [module, product] of adapter.file.products) {
      const weight = target.matrix(module);
      const rank = checkedRank(adapter.file, module, product, weight);
      if (!isChosen(weight, adapter)) continue;
      const factor = adapter.strength * (adapter.file.scaleOf(rank) ?? 1);
      parts.set(weight, [...(parts.get(weight) ?? []), { ...product, rank, factor }]);
    }
    for (const [name, tensor] of adapter.file.replaced) {
      const weight = target.weight(name, tensor);
      if (!isChosen(weight, adapter)) continue;
      // Read now, since the adapter's file is closed before backends read weights.
      tensors.set(weight.name, storedTensor(weight.name, weight.shape, await readFloat32(tensor)));
    }
  }
  const products = new Map<WeightNode, LowRankProduct>();
  for (const [weight, own] of parts) products.set(weight, await joinedProduct(weight, own, tensors));
  const graph = withLowRankProducts(model.graph, (weight) => products.get(weight));
  return { ...model, graph, tensors };
}

function isChosen({ name }: WeightNode, { layers }: AppliedAdapter): boolean {
  if (!layers) return true;
  const layer = /^blocks\.(\d+)\./.exec(name)?.[1];
  return layer !== undefined && layers.has(Number(layer));
}

/** Finds what an adapter calls by names of its file. */
class Targets {
  readonly #model: RecognisedModel;
  readonly #file: AdapterFile;
  readonly #weights: ReadonlyMap<string, WeightNode>;
  readonly #multiplied: ReadonlySet<WeightNode | undefined>;
  readonly #seen = new Set<WeightNode>();

  constructor(model: RecognisedModel, file: AdapterFile) {
    this.#model = model;
    this.#file = file;
    this.#weights = new Map(model.graph.weights.map((weight) => [weight.name, weight]));
    const calls = callsOf(topologicalOrder(model.graph.output));
    this.#multiplied = new Set([...calls].map((call) => matmul.operandsOf(call)?.weight));
  }

  /** The matrix of a module. */
  matrix(module: string): WeightNode {
    const weight = this.#named(`${module}.weight`);
    if (weight && this.#multiplied.has(weight)) return this.#once(weight);
    throw new CheckpointError(
      this.#file.name,
      `${module}: expected a matrix of this RWKV-${this.#model.version} model (${this.#model.graph.weights.length} weights), ` +
        "found no such matrix that rows are multiplied by",
    );
  }

  /** The weight that a tensor takes the place of. */
  weight(name: string, tensor: StoredTensor): WeightNode {
    const weight = this.#named(name);
    if (!weight) throw new CheckpointError(this.#file.name, `unexpected ${tensor.name}: this model has no such weight`);
    const long = (shape: readonly number[]) => shape.filter((dimension) => dimension !== 1).join(", ");
    const isSame = long(tensor.shape) === long(weight.shape) && weight.op === "vector";
    if (isSame) return this.#once(weight);
    throw new CheckpointError(
      this.#file.name,
      `${tensor.name}: expected a vector of shape [${weight.shape.join(", ")}]${weight.op === "vector" ? "" : " or low-rank products for this matrix"}, ` +
        `found [${tensor.shape.join(", ")}]`,
    );
  }

  #named(name: string): WeightNode | undefined {
    return this.#weights.get(this.#model.definition.canonicalName(name));
  }

  #once(weight: WeightNode): WeightNode {
    if (this.#seen.has(weight)) throw new CheckpointError(this.#file.name, `two tensors stand for ${weight.name}`);
    this.#seen.add(weight);
    return weight;
  }
}

/** The rank of a product. @throws CheckpointError where its shapes are not those of its matrix */
function checkedRank({ name }: AdapterFile, module: string, { down, up }: StoredProduct, weight: WeightNode): number {
  const [outputs, inputs] = weight.shape as [number, number];
  const rank = (down ? down.shape[0] : up.shape[1]) ?? 0;
  const check = ({ name: stored, shape }: StoredTensor, expected: readonly unknown[]) => {
    if (shape.join() === expected.join()) return;
    throw new CheckpointError(
      name,
      `${stored}: expected shape [${expected.join(", ")}] for ${module} [${weight.shape.join(", ")}], found [${shape.join(", ")}]`,
    );
  };
  if (down) check(down, [rank > 0 ? rank : "rank", inputs]);
  // That of Bone is stored transposed, and its rank is no more than what it repeats over.
  else if (!(rank > 0 && rank <= inputs && up.shape[0] === outputs)) {
    const stored = `[${up.shape.toReversed().join(", ")}]`;
    throw new CheckpointError(
      name,
      `${up.name}: expected shape [rank up to ${inputs}, ${outputs}] for ${module} [${weight.shape.join(", ")}], found ${stored}`,
    );
  }
  check(up, [outputs, rank]);
  return rank;
}

/** A, for Bone the identity as often as it fits, so that each input is taken to the sum with its place in a block. */
async function downValuesOf({ down, rank }: Part, inputs: number): Promise<Float32Array> {
  if (down) return readFloat32(down);
  const values = new Float32Array(rank * inputs);
  for (let i = 0; i < inputs; i++) values[(i % rank) * inputs + i] = 1;
  return values;
}

/** One product of all those for a weight; the factors are in B. */
async function joinedProduct(
  weight: WeightNode,
  parts: readonly Part[],
  tensors: Map<string, StoredTensor>,
): Promise<LowRankProduct> {
  const [outputs, inputs] = weight.shape as [number, number];
  const rank = parts.reduce((sum, part) => sum + part.rank, 0);
  const downValues = new Float32Array(rank * inputs);
  const upValues = new Float32Array(outputs * rank);
  let first = 0;
  for (const part of parts) {
    const { up, rank: own, factor } = part;
    downValues.set(await downValuesOf(part, inputs), first * inputs);
    const values = await readFloat32(up);
    for (let o = 0; o < outputs; o++) {
      for (let r = 0; r < own; r++) upValues[o * rank + first + r] = factor * (values[o * own + r] as number);
    }
    first += own;
  }
  const types = new Set(parts.flatMap(({ down, up }) => [(down ?? up).dtype, up.dtype]));
  const [type] = types;
  const dtype: FloatType = types.size === 1 && type !== undefined && isFloatType(type) ? type : "f32";
  const module = weight.name.replace(/\.weight$/, "");
  // Small beside the matrix, and quantizing them would cost more than it saves.
  const node = (name: string, shape: readonly number[]): WeightNode => ({ op: "matrix", name, shape, fewestBits: 16 });
  const a = node(`${module}.lora_A.weight`, [rank, inputs]);
  const b = node(`${module}.lora_B.weight`, [outputs, rank]);
  tensors.set(a.name, storedTensor(a.name, a.shape, downValues, dtype));
  tensors.set(b.name, storedTensor(b.name, b.shape, upValues, dtype));
  return { down: a, up: b, scale: 1 };
}
