// The memory of WebAssembly kernels: how it is created, and how blocks of it are allocated.

import { BackendError } from "../../errors.js";
import type { Block } from "../kernel/kernel-machine.js";

const pageSize = 65536;
/** Bytes that 32-bit addresses reach: 4 GiB. */
export const largestMemory: number = 2 ** 32;
/** Bytes for what is not counted of a model: records, what quantizing and sampling need, gaps between blocks. */
export const uncounted: number = 2 ** 24;
const initialPages = 16;
const alignment = 64;

/** A memory, and the most bytes that it may have. */
export interface CreatedMemory {
  readonly memory: WebAssembly.Memory;
  readonly capacity: number;
}

/**
 * Memory that threads share. Engines reserve the address space of its maximum at once, and some (on phones, or with many tabs
 * open) refuse 4 GiB; then less is asked for.
 *
 * @param limit the most bytes that are asked for
 * @throws BackendError when the engine refuses even a sixteenth of that: 256 MiB
 */
export function createSharedMemory(limit: number): CreatedMemory {
  let refusal: unknown;
  for (let capacity = limit; capacity >= limit / 16; capacity /= 2) {
    try {
      const maximum = Math.floor(capacity / pageSize);
      const memory = new WebAssembly.Memory({ initial: initialPages, maximum, shared: true });
      return { memory, capacity: maximum * pageSize };
    } catch (cause) {
      refusal = cause;
    }
  }
  throw new BackendError(`wasm backend: the engine gives no memory that threads can share (${refusal})`, {
    cause: refusal,
  });
}

/**
 * Memory of one thread, which moves when it grows.
 *
 * @param limit the most bytes that it may have
 * @throws BackendError when the engine refuses it
 */
export function createOwnMemory(limit: number): CreatedMemory {
  try {
    return { memory: new WebAssembly.Memory({ initial: initialPages }), capacity: limit };
  } catch (cause) {
    throw new BackendError(`wasm backend: the engine gives no memory (${cause})`, { cause });
  }
}

/** Allocates memory of a WebAssembly instance from below, and never takes it back. */
export class WasmMemory {
  readonly #capacity: number;
  readonly #memory: WebAssembly.Memory;
  #top: number;

  /** @param heapBase where the memory is free from */
  constructor({ memory, capacity }: CreatedMemory, heapBase: number) {
    this.#memory = memory;
    this.#capacity = capacity;
    this.#top = heapBase;
  }

  /** Bytes that can still be allocated, if the engine lets the memory grow so far. */
  get free(): number {
    return this.#capacity - this.#top;
  }

  /** @throws BackendError when there is not enough */
  allocate(size: number): Block {
    const address = Math.ceil(this.#top / alignment) * alignment;
    const end = address + size;
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / pageSize);
    try {
      if (end > this.#capacity) throw new RangeError(`past its maximum of ${this.#capacity} bytes`);
      if (missing > 0) this.#memory.grow(missing);
    } catch (cause) {
      throw new BackendError(`wasm backend: not enough memory for ${size} bytes beside ${this.#top}`, { cause });
    }
    this.#top = end;
    const memory = this.#memory;
    return {
      address,
      // Made anew each time: memory that is not shared moves when it grows.
      get bytes() {
        return new Uint8Array(memory.buffer, address, size);
      },
    };
  }
}
