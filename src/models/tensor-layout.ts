// Which tensors of a file hold which weights of a graph: found out when a checkpoint is bound, and walked backwards
// when a model is written, so that it has the names and shapes that it was read in.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { joined, reshaped } from "../checkpoints/views.js";
import { elementCount, isElementType, isFloating } from "../dtypes.js";
import type { Graph, WeightNode } from "../graph/graph.js";
import { Location, stored } from "./location.js";
import type { ModelDefinition, ModelSize } from "./model-definition.js";

/** A weight, or a run of its rows, in a tensor. */
export interface WeightPart {
  readonly weight: WeightNode;
  readonly location: Location;
  readonly shape: readonly number[];
  /** Elements of the weight before these. */
  readonly start: number;
}

/** A tensor of a file and what lies in it. */
export interface LaidOutTensor {
  /** As the file calls it. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Absent in a new model. */
  readonly tensor?: StoredTensor;
  /** None in a tensor that the version ignores. */
  readonly parts: readonly WeightPart[];
}

/** A graph's weights in a checkpoint. */
export interface BoundWeights {
  /** Each weight as a view of where it is stored, by its name in the graph. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** In the order of the graph's weights, then those that are ignored. */
  readonly layout: readonly LaidOutTensor[];
  /** What is missing, of another shape or type, or not a part of such a model. */
  readonly problems: readonly string[];
}

/**
 * Finds each weight of a graph in the tensors of a checkpoint.
 *
 * @param tensors by canonical name
 * @param storedName what the file calls a tensor of a canonical name, where that is not how RWKV-LM calls it; for problems
 */
export function bindWeights(
  definition: ModelDefinition,
  graph: Graph,
  size: ModelSize,
  tensors: ReadonlyMap<string, StoredTensor>,
  storedName: (canonical: string) => string | undefined = () => undefined,
): BoundWeights {
  const problems = new Set<string>();
  const bound = new Map<string, StoredTensor>();
  const layout = new Map<string, LaidOutTensor & { parts: WeightPart[] }>();
  const names = new Set<string>();
  for (const weight of graph.weights) {
    const views: StoredTensor[] = [];
    const parts = partsOf(definition, weight, size, tensors);
    for (const part of parts) {
      const canonical = part.location.tensor;
      const tensor = tensors.get(canonical);
      const problem = problemOf(part, tensor, storedName(canonical));
      if (problem !== undefined) problems.add(problem);
      if (!tensor) continue;
      let entry = layout.get(canonical);
      if (!entry) {
        // A tied head is the embedding's tensor, and becomes one of its own.
        const name = names.has(tensor.name) ? canonical : tensor.name;
        entry = { name, shape: tensor.shape, tensor, parts: [] };
        names.add(name);
        layout.set(canonical, entry);
      }
      entry.parts.push(part);
      if (problem === undefined) views.push(viewOf(part, tensor));
    }
    if (views.length < parts.length) continue;
    const types = new Set(views.map(({ dtype }) => dtype));
    if (types.size > 1)
      problems.add(`${views.map(({ name }) => name).join(", ")}: expected one type, found ${[...types].join(", ")}`);
    bound.set(weight.name, views.length === 1 ? (views[0] as StoredTensor) : joined(views));
  }
  for (const [canonical, tensor] of tensors) {
    if (layout.has(canonical)) continue;
    if (definition.ignored?.some((mark) => mark.test(canonical))) {
      layout.set(canonical, { name: tensor.name, shape: tensor.shape, tensor, parts: [] });
    } else problems.add(`unexpected ${tensor.name}`);
  }
  return { tensors: bound, layout: [...layout.values()], problems: [...problems] };
}

const maxProblemsShown = 40;

/** Problems, each on a line of its own; of very many the first. */
export function listed(problems: readonly string[]): string {
  const shown = problems.slice(0, maxProblemsShown).map((problem) => `\n  ${problem}`);
  if (problems.length > shown.length) shown.push(`\n  and ${problems.length - shown.length} more`);
  return shown.join("");
}

/** The tensors of a new model. */
export function newLayout(definition: ModelDefinition, graph: Graph, size: ModelSize): LaidOutTensor[] {
  const layout = new Map<string, LaidOutTensor & { parts: WeightPart[] }>();
  for (const weight of graph.weights) {
    for (const part of partsOf(definition, weight, size, new Map())) {
      const name = part.location.tensor;
      const entry = layout.get(name) ?? { name, shape: part.location.storedShape(part.shape), parts: [] };
      entry.parts.push(part);
      layout.set(name, entry);
    }
  }
  return [...layout.values()];
}

/** A weight's parts: one, or several of as many rows. */
function partsOf(
  definition: ModelDefinition,
  weight: WeightNode,
  size: ModelSize,
  tensors: ReadonlyMap<string, StoredTensor>,
): WeightPart[] {
  const where = definition.locate?.(weight, size, tensors) ?? stored(weight.name);
  const locations = where instanceof Location ? [where] : where;
  const shape = weight.shape.with(0, (weight.shape[0] as number) / locations.length);
  return locations.map((location, i) => ({ weight, location, shape, start: i * elementCount(shape) }));
}

/** @param nameInFile where that is another than the tensor's */
function problemOf(
  { weight, location, shape }: WeightPart,
  tensor: StoredTensor | undefined,
  nameInFile: string | undefined,
): string | undefined {
  const inFile = nameInFile === undefined ? "" : ` (in the file ${nameInFile})`;
  const expected = location.storedShape(shape);
  const text = `[${expected.join(", ")}]`;
  if (!tensor) return `missing ${location.tensor} ${text}${inFile || remarkOn(location.tensor)}`;
  const isSame =
    weight.op === "vector"
      ? withoutOnes(tensor.shape).join() === withoutOnes(expected).join()
      : tensor.shape.join() === expected.join();
  if (!isSame) return `${tensor.name}: expected shape ${text}, found [${tensor.shape.join(", ")}]${inFile}`;
  const isAll = weight.op === "matrix" && location.isWhole && shape[0] === weight.shape[0];
  const fits = isFloating(tensor.dtype) || (isAll && !isElementType(tensor.dtype));
  return fits ? undefined : `${tensor.name}: expected floating point, found ${tensor.dtype}${inFile}`;
}

/** @param tensor in which nothing is wrong */
function viewOf({ weight, location, shape }: WeightPart, tensor: StoredTensor): StoredTensor {
  if (weight.op === "matrix" && location.isWhole) return tensor;
  return reshaped(location.viewOf(reshaped(tensor, location.storedShape(shape))), shape);
}

function remarkOn(missing: string): string {
  return missing === "head.weight"
    ? ' (where it is the same as emb.weight, a config.json beside model.safetensors must say "tie_word_embeddings": true)'
    : "";
}

/** RWKV-LM stores vectors as [D] or [1, 1, D]; dimensions of 1 do not matter to them. */
function withoutOnes(shape: readonly number[]): number[] {
  return shape.filter((dimension) => dimension !== 1);
}
