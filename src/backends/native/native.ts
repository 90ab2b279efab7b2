// The native backend: kernels compiled for this machine, a pool of system threads, weights mapped from the file.

import type { ByteSource } from "../../checkpoints/byte-source.js";
import { BackendError } from "../../errors.js";
import type { Backend } from "../backend.js";
import type { Block, KernelMachine } from "../kernel/kernel-machine.js";
import { openKernelRuntime } from "../kernel/kernel-runtime.js";
import { instructionLevels } from "./instruction-levels.js";
import { loadNativeLibrary, type NativeLibrary } from "./native-library.js";

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
 * @throws BackendError when the kernels cannot be compiled or loaded here, or the processor has not that level
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
  readonly #library: NativeLibrary;
  readonly #pool: number;
  readonly #maps = new Map<ByteSource, number>();
  /** Memory that records point to must live as long as the machine. */
  readonly #blocks: Block[] = [];

  constructor(library: NativeLibrary, threads: number, level: number) {
    this.#library = library;
    this.#pool = library.createPool(threads, level);
    if (this.#pool === 0) throw new BackendError("native backend: not enough memory for its threads");
    this.threads = library.poolThreads(this.#pool);
    this.lanes = library.levelLanes(level);
  }

  allocate(size: number): Block {
    let buffer: ArrayBuffer;
    try {
      buffer = new ArrayBuffer(size + alignment);
    } catch (cause) {
      throw new BackendError(`native backend: not enough memory for ${size} bytes`, { cause });
    }
    const start = this.#library.addressOf(new Uint8Array(buffer));
    if (size >= hugePage) this.#library.useHugePages(start, buffer.byteLength);
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
