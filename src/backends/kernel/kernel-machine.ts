// What differs between the native and the wasm backend: where memory comes from, and how a pass is run on all threads.

import type { ByteSource } from "../../byte-source.js";

/** Memory that kernels can reach. */
export interface Block {
  /** Where kernels find it; a multiple of 64. */
  readonly address: number;
  /** The same memory for JavaScript. */
  readonly bytes: Uint8Array;
}

/** A part of a file. */
export interface FilePart {
  readonly source: ByteSource;
  /** In bytes. */
  readonly offset: number;
  readonly size: number;
}

/** The numbers that records and programs have for names, as a library of kernels tells them. */
export interface KernelNumbers {
  readonly kernels: ReadonlyMap<string, number>;
  /** The numbers of elementwise functions, and of the steps that some of them are (kernels/names.h). */
  readonly functions: ReadonlyMap<string, number>;
}

/** The numbers of names in a list such as "add,subtract,", as libraries give them. */
export function numbersOf(names: string): ReadonlyMap<string, number> {
  return new Map(
    names
      .split(",")
      .filter((name) => name !== "")
      .map((name, i) => [name, i]),
  );
}

/** A place where kernels run. */
export interface KernelMachine extends KernelNumbers {
  readonly threads: number;
  /** Floats in a vector of its kernels. */
  readonly lanes: number;
  /** Bytes that can be allocated in all. */
  readonly capacity: number;
  /** Whether its kernels take numbers in float16 for finite, which saves half of the steps where no instruction widens them. */
  readonly takesFiniteHalves: boolean;
  /**
   * Gets zeroed memory.
   *
   * @throws BackendError when there is not enough
   */
  allocate(size: number): Block;
  /** Whether there is a way to map files. */
  readonly mapsFiles: boolean;
  /**
   * Maps a file into the kernels' memory where that is possible, and returns the address of its first byte.
   * Mapping a source twice gives the same address.
   */
  map(source: ByteSource): number | undefined;
  /** Begins to bring parts of what is mapped into memory, beside all else, where there is room. */
  readAhead(parts: readonly FilePart[]): void;
  /** Takes what is mapped but for these parts out of memory: it was read, and will not be again. */
  keepMapped(parts: readonly FilePart[]): void;
  /** Runs the pass whose record lies at `address`, on all threads. The calling thread neither computes nor blocks. */
  run(address: number): Promise<void>;
  /** Ends the threads, gives mapped files back. */
  dispose(): Promise<void>;
}
