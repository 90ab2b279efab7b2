// The states of sequences on the device: blocks of one buffer, which is replaced by a larger one when they do not suffice. Blocks that were
// released are used again.

import { BackendError } from "../../errors.js";
import type { RuntimeState } from "../backend.js";
import { bufferUsage, type Device } from "./device.js";

const firstBlocks = 4;
/** Blocks begin at multiples of so many floats. */
const alignment = 64;

export class StatePool {
  /** Floats in a state. */
  readonly length: number;
  readonly #device: Device;
  readonly #initial: Float32Array<ArrayBuffer>;
  readonly #stride: number;
  readonly #onReplaced: () => void;
  readonly #free: number[] = [];
  readonly #blocks = new WeakMap<RuntimeState, number>();
  #buffer: GPUBuffer;
  #capacity: number;
  #used = 0;

  /**
   * @param initial a state before the first token
   * @param onReplaced called when the states have come to lie in another buffer
   */
  constructor(device: Device, initial: Float32Array, onReplaced: () => void) {
    this.length = initial.length;
    this.#device = device;
    this.#initial = initial.slice();
    this.#stride = Math.max(1, Math.ceil(initial.length / alignment)) * alignment;
    this.#capacity = Math.max(1, Math.min(firstBlocks, this.#mostBlocks));
    this.#onReplaced = onReplaced;
    this.#buffer = this.#create();
  }

  /** Where the states lie now. */
  get buffer(): GPUBuffer {
    return this.#buffer;
  }

  get #mostBlocks(): number {
    return Math.floor(this.#device.largestBuffer / (this.#stride * 4));
  }

  /**
   * @param values by default those before the first token
   * @throws BackendError when a buffer has no room for another state
   */
  create(values: Float32Array = this.#initial): RuntimeState {
    const block = this.#free.pop() ?? this.#take();
    const state: RuntimeState = {
      release: () => {
        if (this.#blocks.delete(state)) this.#free.push(block);
      },
    };
    this.#blocks.set(state, block);
    this.write(state, values);
    return state;
  }

  /** Where a state begins in the buffer, in floats. @throws BackendError for a state that was released or is another model's */
  offsetOf(state: RuntimeState): number {
    const block = this.#blocks.get(state);
    if (block === undefined) throw new BackendError("the state was disposed, or belongs to another model");
    return block * this.#stride;
  }

  write(state: RuntimeState, values: Float32Array): void {
    const { buffer, byteOffset, byteLength } = values;
    const bytes = new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    this.#device.gpu.queue.writeBuffer(this.#buffer, this.offsetOf(state) * 4, bytes);
  }

  async read(state: RuntimeState): Promise<Float32Array> {
    const size = this.length * 4;
    const target = this.#device.buffer("a state to be read", size, bufferUsage.mapRead | bufferUsage.copyTarget);
    const encoder = this.#device.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(this.#buffer, this.offsetOf(state) * 4, target, 0, size);
    this.#device.gpu.queue.submit([encoder.finish()]);
    try {
      return new Float32Array(await this.#device.read(target, size));
    } finally {
      target.destroy();
    }
  }

  /** A block that was never used. */
  #take(): number {
    if (this.#used === this.#capacity) this.#grow();
    return this.#used++;
  }

  #grow(): void {
    const before = this.#buffer;
    const size = this.#capacity * this.#stride * 4;
    if (this.#capacity >= this.#mostBlocks) {
      throw new BackendError(
        `webgpu backend: ${this.#capacity + 1} states of ${this.length * 4} bytes take more than the adapter's limit of ` +
          `${this.#device.largestBuffer} bytes a buffer`,
      );
    }
    this.#capacity = Math.min(2 * this.#capacity, this.#mostBlocks);
    this.#buffer = this.#create();
    const encoder = this.#device.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(before, 0, this.#buffer, 0, size);
    this.#device.gpu.queue.submit([encoder.finish()]);
    // What was submitted before still has it.
    before.destroy();
    this.#onReplaced();
  }

  #create(): GPUBuffer {
    const { storage, copySource, copyTarget } = bufferUsage;
    const size = this.#capacity * this.#stride * 4;
    return this.#device.buffer("the states", size, storage | copySource | copyTarget);
  }
}
