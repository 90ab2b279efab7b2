// Brings the weight matrices of a model onto a device: where each lies in buffers of at most the adapter's limit, and the uploads, some MiB
// at a time, so that a file never lies in memory as a whole.

import { byteLengthOf, type StoredTensor } from "../../checkpoints/checkpoint.js";
import { blockPieces, describeClamped, describeOverflow, tensorPieces } from "../../checkpoints/read-tensor.js";
import { type BlockType, bytesPerElement, type ComputeType, isBlockType, noOverflow } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import type { WeightNode } from "../../graph/graph.js";
import { clampedBlocks, layoutOf } from "../../quantization/quantize.js";
import { blockFormatOf } from "../../quantization/storage-types.js";
import type { BackendModel, OpenOptions } from "../backend.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { Quantizer } from "../kernel/quantizer.js";
import { type Placement, placementsOf } from "../placement.js";
import { createWasmMachine } from "../wasm/wasm.js";
import { bufferUsage, type Device } from "./device.js";
import type { GpuMatrix, MatrixPart } from "./operands.js";
import { groupOutputs, rowsTogether, strideOf } from "./weight-types.js";

/** Rows of a part: few enough that the first dimension of a grid, which is at most 65535, counts four of them. */
const mostRows = 2 ** 17;

/** Bytes of the largest buffer that is made: a very large one is often refused where several are not. */
export const preferredBuffer: number = 2 ** 30;

/** Bytes that are sent at once, and before the device is waited for. */
const pieceSize = 2 ** 22;
const mostUnfinished = 2 ** 26;

/** Where matrices lie. */
export interface MatrixLayout {
  readonly matrices: ReadonlyMap<WeightNode, GpuMatrix>;
  /** Bytes of each buffer. */
  readonly sizes: readonly number[];
}

/**
 * Puts matrices one after the other into as few buffers as their limit allows; larger ones are split by rows.
 *
 * @param limit of a buffer, in bytes
 * @throws BackendError where not even some rows of a matrix fit
 */
export function layOut(types: ReadonlyMap<WeightNode, ComputeType>, limit: number): MatrixLayout {
  const sizes: number[] = [];
  const matrices = new Map<WeightNode, GpuMatrix>();
  for (const [weight, dtype] of types) {
    const [rows, inputs] = weight.shape as [number, number];
    const stride = strideOf(dtype, inputs);
    const together = rowsTogether(dtype);
    const unit = stride * 16;
    // Parts are of sixteen rows and their multiples also where rows stand alone, so that results of parts begin at whole vectors.
    const grain = groupOutputs / together;
    const unitsOfPart = Math.floor(Math.min(limit / unit, mostRows / together) / grain) * grain;
    if (unitsOfPart === 0) {
      throw new BackendError(
        `webgpu backend: sixteen rows of ${weight.name} take ${unit * grain} bytes, and the adapter has a limit of ${limit} bytes a buffer`,
      );
    }
    const units = Math.ceil(rows / together);
    const parts: MatrixPart[] = [];
    for (let first = 0; first < units; first += unitsOfPart) {
      const count = Math.min(unitsOfPart, units - first);
      const size = count * unit;
      if (sizes.length === 0 || (sizes.at(-1) as number) + size > limit) sizes.push(0);
      const buffer = sizes.length - 1;
      const firstRow = first * together;
      parts.push({
        buffer,
        offset: (sizes[buffer] as number) / 16,
        firstRow,
        rows: Math.min(rows - firstRow, count * together),
      });
      sizes[buffer] = (sizes[buffer] as number) + size;
    }
    matrices.set(weight, { dtype, stride, parts });
  }
  return { matrices, sizes };
}

/**
 * Makes the buffers and fills them.
 *
 * @throws BackendError when there is no memory for them; CheckpointError when a tensor cannot be read
 */
export async function uploadMatrices(
  device: Device,
  { tensors }: BackendModel,
  types: ReadonlyMap<WeightNode, ComputeType>,
  { matrices, sizes }: MatrixLayout,
  options: OpenOptions,
): Promise<GPUBuffer[]> {
  const buffers: GPUBuffer[] = [];
  const total = sizes.reduce((sum, size) => sum + size, 0);
  for (const [i, size] of sizes.entries()) {
    const what = `weights ${i + 1} of ${sizes.length} (${size} of ${total} bytes)`;
    const usage = bufferUsage.storage | bufferUsage.copyTarget;
    buffers.push(await device.settle(what, () => device.buffer("the weights", size, usage)));
  }
  const placements = placementsOf(tensors, types, { maps: false });
  const bytesInAll = placements.reduce((sum, { tensor }) => sum + byteLengthOf(tensor), 0);
  const source = new MatrixSource(options);
  let done = 0;
  try {
    for (const placement of placements) {
      const { weight, tensor, computed } = placement;
      const matrix = matrices.get(weight) as GpuMatrix;
      const inputs = weight.shape[1] as number;
      const rowBytes = isBlockType(computed) ? matrix.stride * 16 : inputs * bytesPerElement[computed];
      const uploader = new Uploader(device, buffers, matrix, rowBytes);
      for await (const piece of source.pieces(placement)) await uploader.add(piece);
      uploader.finish();
      done += byteLengthOf(tensor);
      options.onProgress?.(done, bytesInAll);
    }
  } finally {
    await source.dispose();
  }
  await device.idle();
  return buffers;
}

/** Sends the rows of a matrix to where they lie, in pieces, and each row filled up to whole vectors of 16 bytes. */
class Uploader {
  readonly #device: Device;
  readonly #buffers: readonly GPUBuffer[];
  readonly #matrix: GpuMatrix;
  readonly #rowBytes: number;
  readonly #pitch: number;
  readonly #piece: Uint8Array<ArrayBuffer>;
  /** Bytes in the piece, and of the matrix that were sent. */
  #filled = 0;
  #sent = 0;
  /** Bytes of the row that is being filled. */
  #ofRow = 0;
  #unfinished = 0;

  /** @param rowBytes bytes of a row, or of a group of rows, as it comes */
  constructor(device: Device, buffers: readonly GPUBuffer[], matrix: GpuMatrix, rowBytes: number) {
    this.#device = device;
    this.#buffers = buffers;
    this.#matrix = matrix;
    this.#rowBytes = rowBytes;
    this.#pitch = matrix.stride * 16;
    const rows = matrix.parts.reduce((sum, part) => sum + part.rows, 0);
    const size = Math.ceil(rows / rowsTogether(matrix.dtype)) * this.#pitch;
    this.#piece = new Uint8Array(Math.min(pieceSize, size));
  }

  async add(bytes: Uint8Array): Promise<void> {
    const padding = this.#pitch - this.#rowBytes;
    for (let at = 0; at < bytes.length; ) {
      if (this.#filled === this.#piece.length) await this.#send();
      const space = this.#piece.length - this.#filled;
      // Rows without gaps between them come as they are; a gap may begin in one piece and end in the next.
      const left = padding === 0 ? Number.POSITIVE_INFINITY : this.#rowBytes - this.#ofRow;
      if (left <= 0) {
        const gap = Math.min(space, this.#pitch - this.#ofRow);
        this.#piece.fill(0, this.#filled, this.#filled + gap);
        this.#advance(gap);
        continue;
      }
      const count = Math.min(bytes.length - at, space, left);
      this.#piece.set(bytes.subarray(at, at + count), this.#filled);
      this.#advance(count);
      at += count;
    }
  }

  /** Sends what is left; the gap behind the last row is zeros already. */
  finish(): void {
    this.#piece.fill(0, this.#filled, Math.ceil(this.#filled / 16) * 16);
    this.#filled = Math.ceil(this.#filled / 16) * 16;
    this.#write();
  }

  #advance(count: number): void {
    this.#filled += count;
    this.#ofRow = (this.#ofRow + count) % this.#pitch;
  }

  async #send(): Promise<void> {
    this.#write();
    if (this.#unfinished < mostUnfinished) return;
    this.#unfinished = 0;
    await this.#device.idle();
  }

  /** Writes the piece; it may reach over the end of a part. */
  #write(): void {
    for (let from = 0; from < this.#filled; ) {
      const { part, before } = this.#partAt(this.#sent);
      const end = before + this.#bytesOf(part);
      const count = Math.min(this.#filled - from, end - this.#sent);
      const target = part.offset * 16 + this.#sent - before;
      this.#device.gpu.queue.writeBuffer(this.#buffers[part.buffer] as GPUBuffer, target, this.#piece, from, count);
      from += count;
      this.#sent += count;
      this.#unfinished += count;
    }
    this.#filled = 0;
  }

  /** The part that a byte of the matrix is in, and the bytes before that part. */
  #partAt(position: number): { part: MatrixPart; before: number } {
    let before = 0;
    for (const part of this.#matrix.parts) {
      const size = this.#bytesOf(part);
      if (position < before + size) return { part, before };
      before += size;
    }
    throw new RangeError("more bytes than the matrix has");
  }

  #bytesOf({ rows }: MatrixPart): number {
    return Math.ceil(rows / rowsTogether(this.#matrix.dtype)) * this.#pitch;
  }
}

/** Reads matrices in the type that they are computed with, row by row or group by group. */
class MatrixSource {
  readonly #options: OpenOptions;
  #quantizing: Promise<{ machine: KernelMachine; quantizer: Quantizer }> | undefined;
  #block: Block | undefined;

  constructor(options: OpenOptions) {
    this.#options = options;
  }

  async *pieces({ tensor, computed, treatment }: Placement): AsyncGenerator<Uint8Array, void, void> {
    const { onNotice } = this.#options;
    if (!isBlockType(computed)) {
      const overflow = noOverflow();
      yield* tensorPieces(tensor, computed, overflow);
      if (overflow.count > 0) onNotice?.(describeOverflow(tensor, computed, overflow));
    } else if (treatment === "repack") yield* repacked(tensor, computed);
    else if (treatment === "quantize") {
      const bytes = await this.#quantize(tensor, computed);
      const clamped = tensor.dtype === "f16" ? 0 : clampedBlocks(bytes, computed, tensor.shape[1] as number);
      if (clamped > 0) onNotice?.(describeClamped(tensor, computed, clamped));
      yield bytes;
    } else yield* tensorPieces(tensor, computed);
  }

  async dispose(): Promise<void> {
    await (await this.#quantizing)?.machine.dispose();
  }

  /** Quantizes by the kernels of WebAssembly, which are there wherever this backend is. */
  async #quantize(tensor: StoredTensor, dtype: BlockType): Promise<Uint8Array> {
    this.#quantizing ??= createWasmMachine(this.#options.threads).then((machine) => ({
      machine,
      quantizer: new Quantizer(machine),
    }));
    const { machine, quantizer } = await this.#quantizing;
    const size = byteLengthOf({ dtype, shape: tensor.shape });
    if (!this.#block || this.#block.bytes.length < size) this.#block = machine.allocate(size);
    await quantizer.quantize(tensor, dtype, this.#block.address);
    return this.#block.bytes.subarray(0, size);
  }
}

/** A matrix in blocks in the layout that shaders read, with the same scales and integers. */
async function* repacked(tensor: StoredTensor, dtype: BlockType): AsyncGenerator<Uint8Array, void, void> {
  const inputs = tensor.shape[1] as number;
  const format = blockFormatOf(tensor.dtype);
  if (format?.repack?.to !== dtype) throw new RangeError(`${tensor.name}: no layout of ${tensor.dtype} as ${dtype}`);
  const size = layoutOf(dtype).groupSize(inputs);
  const step = (format.groupSize(inputs) / format.groupOutputs) * groupOutputs;
  for await (const { groups } of blockPieces(tensor, groupOutputs)) {
    const piece = new Uint8Array(Math.ceil(groups.length / step) * size);
    for (let from = 0, at = 0; from < groups.length; from += step, at += size) {
      format.repack.group(groups.subarray(from, from + step), inputs, piece.subarray(at, at + size));
    }
    yield piece;
  }
}
