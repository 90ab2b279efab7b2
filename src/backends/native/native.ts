// The native backend: kernels compiled for this machine, a pool of system threads, weights mapped from the file.

import type { ByteSource } from "../../checkpoints/byte-source.js";
import { BackendError } from "../../errors.js";
import type { Backend } from "../backend.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { loadNativeLibrary, type NativeLibrary } from "./native-library.js";

export const nativeBackend: Backend = {
  name: "native",
  async open(model, options) {
    return openKernelRuntime(await createNativeMachine(options.threads), model, options);
  },
};

/** @throws BackendError when the kernels cannot be compiled or loaded here */
export async function createNativeMachine(threads: number): Promise<KernelMachine> {
  return new NativeMachine(await loadNativeLibrary(), threads);
}

const alignment = 64;

class NativeMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes: number;
  readonly #library: NativeLibrary;
  readonly #pool: number;
  readonly #maps = new Map<ByteSource, number>();
  /** Memory that records point to must live as long as the machine. */
  readonly #blocks: Block[] = [];

  constructor(library: NativeLibrary, threads: number) {
    this.#library = library;
    this.#pool = library.createPool(threads);
    if (this.#pool === 0) throw new BackendError("native backend: not enough memory for its threads");
    this.threads = library.poolThreads(this.#pool);
    this.lanes = library.lanes();
  }

  allocate(size: number): Block {
    let buffer: ArrayBuffer;
    try {
      buffer = new ArrayBuffer(size + alignment);
    } catch (cause) {
      throw new BackendError(`native backend: not enough memory for ${size} bytes`, { cause });
    }
    const start = this.#library.addressOf(new Uint8Array(buffer));
    const shift = (alignment - (start % alignment)) % alignment;
    const block = { address: start + shift, bytes: new Uint8Array(buffer, shift, size) };
    this.#blocks.push(block);
    return block;
  }

  map(source: ByteSource): number | undefined {
    if (source.path === undefined) return undefined;
    let address = this.#maps.get(source);
    if (address === undefined) {
      address = this.#library.mapFile(source.path, source.size);
      this.#maps.set(source, address);
    }
    return address === 0 ? undefined : address;
  }

  run(address: number): Promise<void> {
    return this.#library.runPool(this.#pool, address);
  }

  async dispose(): Promise<void> {
    this.#library.destroyPool(this.#pool);
    for (const [source, address] of this.#maps) if (address !== 0) this.#library.unmapFile(address, source.size);
    this.#maps.clear();
    this.#blocks.length = 0;
  }
}
