// Brings the weight matrices of a model into a kernel machine's memory.

import { byteLengthOf, type StoredTensor } from "../../checkpoints/checkpoint.js";
import { blockPieces, describeClamped, describeOverflow } from "../../checkpoints/read-tensor.js";
import {
  type BlockType,
  type ComputeType,
  convertElements,
  isBlockType,
  isFloatType,
  noOverflow,
} from "../../dtypes.js";
import type { WeightNode } from "../../graph/graph.js";
import { groupOutputs } from "../../quantization/blocks.js";
import { clampedBlocks, layoutOf } from "../../quantization/quantize.js";
import { blockFormatOf } from "../../quantization/storage-types.js";
import type { BackendModel } from "../backend.js";
import { type Placement, placementsOf } from "../placement.js";
import { Converter } from "./converter.js";
import type { Block, FilePart, KernelMachine } from "./kernel-machine.js";
import { mappedAddress } from "./mapped-address.js";
import { Quantizer } from "./quantizer.js";

/** A matrix in a machine's memory. */
export interface PlacedMatrix {
  readonly address: number;
  readonly dtype: ComputeType;
  /** The memory, where it was not mapped from a file. */
  readonly bytes?: () => Uint8Array;
}

/** How matrices are placed. */
export interface PlaceOptions {
  /** Called as weights are read, with bytes done and bytes in all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Called with a line about weights that their type cannot hold. */
  readonly onNotice?: ((message: string) => void) | undefined;
  /** Matrices that will be written to, so may not be mapped. */
  readonly changing?: ReadonlySet<WeightNode>;
}

/** Brings all matrices into a machine's memory, each as placement.ts decides. */
export async function placeMatrices(
  machine: KernelMachine,
  { tensors }: BackendModel,
  types: ReadonlyMap<WeightNode, ComputeType>,
  { onProgress, onNotice, changing = new Set() }: PlaceOptions = {},
): Promise<Map<WeightNode, PlacedMatrix>> {
  const matrices = new Map<WeightNode, PlacedMatrix>();
  const placements = placementsOf(tensors, types, { maps: machine.mapsFiles, changing });
  const kept: FilePart[] = [];
  machine.readAhead(placements.filter((placement) => isReadWhereItLies(machine, placement)).map(partOf));
  const maker = new MatrixMaker(machine);
  const total = placements.reduce((sum, { tensor }) => sum + byteLengthOf(tensor), 0);
  let done = 0;
  for (const placement of placements) {
    const { weight, tensor, computed: dtype } = placement;
    if (placement.treatment === "map") await tensor.source.arrival?.whenWhole();
    // Where the system refuses to map it, the bytes are copied.
    const address = placement.treatment === "map" ? mappedAddress(machine, tensor) : undefined;
    if (address !== undefined) {
      matrices.set(weight, { address, dtype });
      kept.push(partOf(placement));
    } else {
      const block = machine.allocate(byteLengthOf({ dtype, shape: weight.shape }));
      const problem = await maker.make(placement, block);
      if (problem !== undefined) onNotice?.(problem);
      const isOdd = dtype === "f16" && machine.takesFiniteHalves && !isFinite16(block.bytes);
      const placed = { address: block.address, dtype, bytes: () => block.bytes };
      matrices.set(weight, isOdd ? asFloat32(machine, block) : placed);
    }
    done += byteLengthOf(tensor);
    onProgress?.(done, total);
  }
  // It ends the reading ahead, which goes on where most is used as it lies.
  const used = kept.reduce((sum, { size }) => sum + size, 0);
  if (used < total / 2) machine.keepMapped(kept);
  return matrices;
}

/** Whether a matrix is read by its place in a mapped file; copies, and blocks that are made anew, are read piece by piece. */
function isReadWhereItLies(machine: KernelMachine, { tensor, treatment }: Placement): boolean {
  const isMapped = treatment === "map" || (treatment !== "copy" && isFloatType(tensor.dtype));
  return isMapped && mappedAddress(machine, tensor) !== undefined;
}

/** Where a matrix lies. */
const partOf = ({ tensor }: Placement): FilePart => {
  return { source: tensor.source, offset: tensor.offset, size: byteLengthOf(tensor) };
};

/** Whether all of these numbers in float16 are finite. */
function isFinite16({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  const infinity = 0x7c00;
  const pairs = new Int32Array(buffer, byteOffset, byteLength >> 2);
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i] as number;
    if ((pair & infinity) === infinity || ((pair >> 16) & infinity) === infinity) return false;
  }
  const rest = new Uint16Array(buffer, byteOffset + 4 * pairs.length, (byteLength >> 1) % 2);
  return rest.every((half) => (half & infinity) !== infinity);
}

/**
 * The same in float32, for a machine that takes numbers in float16 for finite: a matrix of a damaged file, or of weights that float16
 * cannot hold.
 */
function asFloat32(machine: KernelMachine, half: Block): PlacedMatrix {
  const block = machine.allocate(2 * half.bytes.byteLength);
  convertElements(half.bytes, "f16", block.bytes, "f32");
  return { address: block.address, dtype: "f32", bytes: () => block.bytes };
}

/** Makes matrices in a machine's memory of those in a file. */
class MatrixMaker {
  readonly #quantizer: Quantizer;
  readonly #converter: Converter;

  constructor(machine: KernelMachine) {
    this.#quantizer = new Quantizer(machine);
    this.#converter = new Converter(machine);
  }

  /** Returns a line about weights that the type cannot hold, if there are any. */
  async make({ tensor, computed, treatment }: Placement, block: Block): Promise<string | undefined> {
    if (!isBlockType(computed)) {
      const overflow = noOverflow();
      await this.#converter.convert(tensor, computed, block, overflow);
      return overflow.count > 0 ? describeOverflow(tensor, computed, overflow) : undefined;
    }
    if (treatment === "quantize") {
      await this.#quantizer.quantize(tensor, computed, block.address);
      // The largest of float16 fits any scale.
      const clamped = tensor.dtype === "f16" ? 0 : clampedBlocks(block.bytes, computed, tensor.shape[1] as number);
      return clamped > 0 ? describeClamped(tensor, computed, clamped) : undefined;
    }
    if (treatment === "repack") await repackInto(tensor, computed, block);
    else await tensor.source.readInto(tensor.offset, block.bytes);
    return undefined;
  }
}

/** Lays out a matrix in blocks as kernels read them, whose scales and integers are the same. */
async function repackInto(tensor: StoredTensor, dtype: BlockType, block: Block): Promise<void> {
  const inputs = tensor.shape[1] as number;
  const format = blockFormatOf(tensor.dtype);
  if (format?.repack?.to !== dtype) throw new RangeError(`${tensor.name}: no layout of ${tensor.dtype} as ${dtype}`);
  const size = layoutOf(dtype).groupSize(inputs);
  let at = 0;
  for await (const { groups } of blockPieces(tensor, groupOutputs)) {
    const { bytes } = block; // anew for each piece: memory that is not shared moves when it grows
    const step = (format.groupSize(inputs) / format.groupOutputs) * groupOutputs;
    for (let from = 0; from < groups.length; from += step, at += size) {
      format.repack.group(groups.subarray(from, from + step), inputs, bytes.subarray(at, at + size));
    }
  }
}
