// The native backend: kernels compiled for this machine, a pool of system threads, weights mapped from the file.

import type { ByteSource } from "../../byte-source.js";
import { BackendError } from "../../errors.js";
import { availableMemory } from "../../platform/node/limits.js";
import type { Backend } from "../backend.js";
import { type Block, type FilePart, type KernelMachine, numbersOf } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { instructionLevels } from "./instruction-levels.js";
import { loadNativeLibrary, type MappingHandle, type NativeLibrary, type PoolHandle } from "./native-library.js";

export const nativeBackend: Backend = nativeBackendAt();

/** The native backend, held to one level of instruction sets (instruction-levels.ts); by default the highest. */
export function nativeBackendAt(level?: string): Backend {
  return {
    name: "native",
    prepare: () => void loadNativeLibrary().catch(() => {}),
    async open(model, options) {
      return openKernelRuntime(await createNativeMachine(options.threads, level, options.onNotice), model, options);
    },
  };
}

/** The levels that this processor has, lowest first. @throws BackendError as `createNativeMachine` */
export async function supportedLevels(): Promise<string[]> {
  const library = await loadNativeLibrary();
  return instructionLevels.map(({ name }) => name).filter((name) => library.findLevel(name) >= 0);
}

/**
 * @param level the environment variable RWKV_INSTRUCTIONS by default, else the highest that the processor has
 * @throws BackendError when the kernels cannot be compiled or loaded here, or the processor does not support that level
 */
export async function createNativeMachine(
  threads: number,
  level: string = process.env["RWKV_INSTRUCTIONS"] ?? "",
  onNotice?: (message: string) => void,
): Promise<KernelMachine> {
  const library = await loadNativeLibrary(onNotice);
  const number = library.findLevel(level);
  if (number < 0) {
    const known = await supportedLevels();
    throw new BackendError(
      `native backend: expected instructions ${known.join(", ")} on this processor, found "${level}"`,
    );
  }
  return new NativeMachine(library, threads, number);
}

const alignment = 64;
const hugePage = 2 ** 21;

class NativeMachine implements KernelMachine {
  readonly threads: number;
  readonly lanes: number;
  readonly capacity: number = Number.POSITIVE_INFINITY;
  readonly takesFiniteHalves = false;
  readonly mapsFiles = true;
  readonly kernels: ReadonlyMap<string, number>;
  readonly functions: ReadonlyMap<string, number>;
  readonly #library: NativeLibrary;
  readonly #pool: PoolHandle;
  readonly #mappings = new Map<ByteSource, MappingHandle | undefined>();
  /** Memory that records point to must live as long as the machine. */
  readonly #blocks: Block[] = [];

  constructor(library: NativeLibrary, threads: number, level: number) {
    this.#library = library;
    try {
      this.#pool = library.createPool(threads, level);
    } catch (cause) {
      throw new BackendError(`native backend: ${(cause as Error).message}`, { cause });
    }
    this.threads = library.poolThreads(this.#pool);
    this.lanes = library.levelLanes(level);
    this.kernels = numbersOf(library.kernelNames());
    this.functions = numbersOf(library.functionNames());
  }

  allocate(size: number): Block {
    let memory: Uint8Array<SharedArrayBuffer>;
    try {
      // Shared memory cannot be transferred to another thread, so it stays where kernels find it whatever is done
      // with a view.
      memory = new Uint8Array(new SharedArrayBuffer(size + alignment));
    } catch (cause) {
      throw new BackendError(`native backend: not enough memory for ${size} bytes`, { cause });
    }
    if (size >= hugePage) this.#library.useHugePages(memory);
    const start = this.#library.addressOf(memory);
    const shift = (alignment - (start % alignment)) % alignment;
    const block = { address: start + shift, bytes: memory.subarray(shift, shift + size) };
    this.#blocks.push(block);
    return block;
  }

  map(source: ByteSource): number | undefined {
    if (!this.#mappings.has(source)) {
      const { descriptor } = source;
      const mapping = descriptor === undefined ? undefined : this.#library.mapFile(descriptor, source.size);
      this.#mappings.set(source, mapping);
    }
    const mapping = this.#mappings.get(source);
    return mapping && this.#library.mappingAddress(mapping);
  }

  readAhead(parts: readonly FilePart[]): void {
    for (const [source, mapping] of this.#mappings) {
      const ahead = parts.filter((part) => part.source === source).sort((a, b) => a.offset - b.offset);
      const total = ahead.reduce((sum, { size }) => sum + size, 0);
      // What memory cannot hold would drive out what was read before.
      if (!mapping || total > availableMemory() / 2) continue;
      this.#library.readAhead(mapping, Float64Array.from(ahead.flatMap(({ offset, size }) => [offset, size])));
    }
  }

  keepMapped(parts: readonly FilePart[]): void {
    for (const [source, mapping] of this.#mappings) {
      if (!mapping) continue;
      const kept = parts.filter((part) => part.source === source).sort((a, b) => a.offset - b.offset);
      let at = 0;
      for (const { offset, size } of [...kept, { offset: source.size, size: 0 }]) {
        if (offset > at) this.#library.forgetMapped(mapping, at, offset - at);
        at = Math.max(at, offset + size);
      }
    }
  }

  async run(address: number): Promise<void> {
    try {
      await this.#library.runPool(this.#pool, address, this);
    } catch (cause) {
      throw new BackendError(`native backend: ${(cause as Error).message}`, { cause });
    }
  }

  async dispose(): Promise<void> {
    this.#library.destroyPool(this.#pool);
    for (const mapping of this.#mappings.values()) if (mapping) this.#library.unmapFile(mapping);
    this.#mappings.clear();
    this.#blocks.length = 0;
  }
}
