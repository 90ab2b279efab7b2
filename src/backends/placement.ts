// The one place that decides how the weights of a file become what kernels read: which type each matrix is computed
// with, and whether for that it is mapped, copied, laid out anew, converted or quantized.

import { isContiguous, type StoredTensor } from "../checkpoints/checkpoint.js";
import {
  type BlockType,
  bytesPerElement,
  type ComputeType,
  elementCount,
  isBlockType,
  isElementType,
  isFloatType,
} from "../dtypes.js";
import type { GraphPart, WeightNode } from "../graph/graph.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { matrixUses } from "./matrix-uses.js";
import { tensorOf } from "./weights.js";

/**
 * What is done to a matrix.
 * - `map`: it is used where it lies in its file.
 * - `copy`: the same bytes come into memory.
 * - `repack`: the same numbers, in another order.
 * - `convert`: to another type of floating point number.
 * - `quantize`: to blocks, which loses a little.
 */
export type Treatment = "map" | "copy" | "repack" | "convert" | "quantize";

/** How a matrix comes into memory. */
export interface Placement {
  readonly weight: WeightNode;
  readonly tensor: StoredTensor;
  readonly stored: StorageType;
  readonly computed: ComputeType;
  readonly treatment: Treatment;
}

/** What a machine can do, and what is to be done there. */
export interface PlacementOptions {
  /** Whether files can be mapped. */
  readonly maps: boolean;
  /** Matrices that will be written to, so may not be mapped. */
  readonly changing?: ReadonlySet<WeightNode>;
}

/**
 * How each matrix of a model comes into memory, once its type is known; in an order in which they can be placed while their file is still
 * being downloaded.
 */
export function placementsOf(
  tensors: ReadonlyMap<string, StoredTensor>,
  types: ReadonlyMap<WeightNode, ComputeType>,
  { maps, changing }: PlacementOptions,
): Placement[] {
  const placements = [...types].map(([weight, computed]) => {
    const tensor = tensorOf(tensors, weight);
    const treatment = treatmentOf(tensor, computed, maps && !changing?.has(weight));
    return { weight, tensor, stored: tensor.dtype, computed, treatment };
  });
  return placements.sort((a, b) => turnOf(a) - turnOf(b) || positionOf(a) - positionOf(b));
}

/** What comes bit by bit is placed first, in the order of the file, and what is mapped last, since only a whole file is. */
function turnOf({ tensor, treatment }: Placement): number {
  if (!tensor.source.arrival) return 1;
  return treatment === "map" ? 2 : 0;
}

function positionOf({ tensor }: Placement): number {
  return tensor.source.arrival ? tensor.offset : 0;
}

/** @param mayMap whether it may be used where it lies */
export function treatmentOf(tensor: StoredTensor, computed: ComputeType, mayMap: boolean): Treatment {
  if (tensor.dtype === computed) {
    return mayMap && isUsableAsItLies(tensor) ? "map" : "copy";
  }
  if (blockFormatOf(tensor.dtype)?.repack?.to === computed) return "repack";
  return isBlockType(computed) ? "quantize" : "convert";
}

/** Whether kernels could read a tensor in its file: a local one, without gaps, in row-major order, at an aligned place. */
export function isUsableAsItLies(tensor: StoredTensor): boolean {
  if (tensor.source.descriptor === undefined) return false;
  const alignment = isElementType(tensor.dtype) ? bytesPerElement[tensor.dtype] : 2;
  return isContiguous(tensor) && tensor.offset % alignment === 0 && elementCount(tensor.shape) > 0;
}

/** How many matrices come into memory in one way. */
export interface PlacementCount extends Pick<Placement, "treatment" | "stored" | "computed"> {
  readonly count: number;
}

export function countPlacements(placements: readonly Placement[]): PlacementCount[] {
  const counts = new Map<string, PlacementCount>();
  for (const { treatment, stored, computed } of placements) {
    const key = `${treatment} ${stored} ${computed}`;
    counts.set(key, { treatment, stored, computed, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  return [...counts.values()];
}

/** In words: "map 50 (bf16), quantize 4 (f32 to q8)". */
export function describePlacements(counts: readonly PlacementCount[]): string {
  const types = ({ stored, computed }: PlacementCount) => (stored === computed ? stored : `${stored} to ${computed}`);
  return counts.map((each) => `${each.treatment} ${each.count} (${types(each)})`).join(", ");
}

/**
 * What is to be said where matrices lose a little though no type was asked for: a line for each type of blocks that kernels
 * have nothing like, and which is fitted to another.
 */
export function describeFitted(graph: GraphPart, tensors: ReadonlyMap<string, StoredTensor>): string[] {
  const placements = placementsOf(tensors, matrixTypes(graph, tensors, undefined), { maps: true });
  return countPlacements(placements)
    .filter(({ treatment, stored }) => treatment === "quantize" && !isElementType(stored))
    .map(
      ({ count, stored, computed }) =>
        `${count} of ${placements.length} matrices are fitted to ${computed} while loading, since kernels have no type like ` +
        `${stored}; rwkv convert --dtype ${computed} does it once`,
    );
}

/**
 * The type that each matrix is computed with: the wanted one, or as stored where kernels have it. With a type of blocks
 * embeddings, of which a token reads one row, stay as they are stored; and no matrix gets fewer bits than its model says.
 */
export function matrixTypes(
  graph: GraphPart,
  tensors: ReadonlyMap<string, StoredTensor>,
  wanted: ComputeType | undefined,
): Map<WeightNode, ComputeType> {
  const { tables, recurrent } = matrixUses(graph);
  const types = new Map<WeightNode, ComputeType>();
  for (const weight of graph.weights.filter(({ op }) => op === "matrix")) {
    const nearest = nearestTo(tensorOf(tensors, weight).dtype);
    const type = typeFor(weight, wanted ?? nearest, nearest);
    if (recurrent.has(weight)) types.set(weight, "f32");
    else types.set(weight, tables.has(weight) && isBlockType(type) ? nearest : type);
  }
  return types;
}

/** The type to compute with that is, or is nearest to, the one that a matrix is stored in. */
function nearestTo(stored: StorageType): ComputeType {
  return blockFormatOf(stored)?.computed ?? (isFloatType(stored) ? stored : "f32");
}

/** Blocks of no fewer bits than a matrix may have; it keeps what it is stored as where it may not be quantized at all. */
function typeFor({ fewestBits = 4 }: WeightNode, wanted: ComputeType, nearest: ComputeType): ComputeType {
  if (!isBlockType(wanted) || wanted === nearest || fewestBits <= bitsOf[wanted]) return wanted;
  return fewestBits === 8 ? "q8" : nearest;
}

const bitsOf: Readonly<Record<BlockType, number>> = { q8: 8, q4: 4, q4k: 4, q5k: 5, q6k: 6 };

/** The type that most of a model's matrices are computed with. */
export function mainType(types: ReadonlyMap<WeightNode, ComputeType>): ComputeType {
  const sizes = new Map<ComputeType, number>();
  for (const [{ shape }, type] of types) sizes.set(type, (sizes.get(type) ?? 0) + elementCount(shape));
  return [...sizes].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
}
