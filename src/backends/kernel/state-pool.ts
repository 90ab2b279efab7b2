// State blocks in a kernel machine's memory; released ones are used again.

import { BackendError } from "../../errors.js";
import type { StateLayout } from "../../graph/state-layout.js";
import type { RuntimeState } from "../backend.js";
import type { Block, KernelMachine } from "./kernel-machine.js";

export class StatePool {
  readonly #machine: KernelMachine;
  readonly #layout: StateLayout;
  readonly #free: Block[] = [];
  readonly #blocks = new WeakMap<RuntimeState, Block>();

  constructor(machine: KernelMachine, layout: StateLayout) {
    this.#machine = machine;
    this.#layout = layout;
  }

  create(): RuntimeState {
    const block = this.#free.pop() ?? this.#machine.allocate(this.#layout.length * 4);
    const { length, initial } = this.#layout;
    const state: RuntimeState = {
      // Made anew each time: a machine's memory may move.
      get values() {
        return new Float32Array(block.bytes.buffer, block.bytes.byteOffset, length);
      },
      release: () => {
        if (this.#blocks.delete(state)) this.#free.push(block);
      },
    };
    state.values.set(initial);
    this.#blocks.set(state, block);
    return state;
  }

  /** @throws BackendError for a state that was released or is another model's */
  addressOf(state: RuntimeState): number {
    const block = this.#blocks.get(state);
    if (!block) throw new BackendError("the state was disposed, or belongs to another model");
    return block.address;
  }
}
