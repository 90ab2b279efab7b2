// State blocks in a kernel machine's memory. Released blocks are reused.

import { BackendError } from "../../errors.js";
import type { ResidentState, RuntimeState } from "../backend.js";
import type { Block, KernelMachine } from "./kernel-machine.js";

export class StatePool {
  readonly #machine: KernelMachine;
  readonly #initial: Float32Array;
  readonly #free: Block[] = [];
  readonly #blocks = new WeakMap<RuntimeState, Block>();

  /** Floats in a state. */
  get length(): number {
    return this.#initial.length;
  }

  /** @param initial a state before the first token */
  constructor(machine: KernelMachine, initial: Float32Array) {
    this.#machine = machine;
    this.#initial = initial;
  }

  /** @param values by default those before the first token */
  create(values: Float32Array = this.#initial): ResidentState {
    const block = this.#free.pop() ?? this.#machine.allocate(this.length * 4);
    const { length } = this;
    const state: ResidentState = {
      // A new view each time, since a machine's memory may move.
      get values() {
        return new Float32Array(block.bytes.buffer, block.bytes.byteOffset, length);
      },
      release: () => {
        if (this.#blocks.delete(state)) this.#free.push(block);
      },
    };
    state.values.set(values);
    this.#blocks.set(state, block);
    return state;
  }

  /** @throws BackendError for a state that was released or is another model's */
  addressOf(state: RuntimeState): number {
    return this.#blockOf(state).address;
  }

  /** The values of a state, where they lie. @throws as `addressOf` */
  valuesOf(state: RuntimeState): Float32Array {
    const { bytes } = this.#blockOf(state);
    return new Float32Array(bytes.buffer, bytes.byteOffset, this.length);
  }

  #blockOf(state: RuntimeState): Block {
    const block = this.#blocks.get(state);
    if (!block) throw new BackendError("the state was disposed, or belongs to another model");
    return block;
  }
}
