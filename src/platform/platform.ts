// What the package needs of the system that it runs on. Each interface is a module of the same name in src/platform/node and in
// src/platform/browser; package.json's `#platform/*` chooses between them, and implementations.ts checks both.

import type { ByteSource } from "../byte-source.js";
import type { OnDownload } from "../http/download.js";

/** `files`: files by path in Node, by URL in a page. */
export interface Files {
  /** The model in the package. */
  readonly embeddedModel: string;
  /** Its tokenizer. */
  readonly embeddedTokenizer: string;
  /** A name in a folder. */
  join(folder: string, name: string): string;
  /** The folder that a file is in. */
  dirname(path: string): string;
  /** The last name of a path. */
  basename(path: string): string;
  /** What a path or URL that a user gave is opened by. @throws OptionError for a URL of a kind that cannot be read */
  resolvePath(path: string | URL): string;
  /** The names in a folder; undefined for what is none. Where folders cannot be listed, `tried` are the names to look for. */
  listFolder(path: string, tried?: readonly string[]): Promise<string[] | undefined>;
  /** Bytes of a file; undefined where there is none. */
  fileSize(path: string): Promise<number | undefined>;
  /** A whole file. @throws RwkvError when it cannot be read */
  readBytes(path: string): Promise<Uint8Array>;
  /** A whole file as text, without a byte order mark. @throws RwkvError when it cannot be read or is not UTF-8 */
  readText(path: string): Promise<string>;
  /** Opens a file for reading by range. @throws CheckpointError when it cannot be opened */
  fileSource(path: string, onDownload?: OnDownload): Promise<ByteSource>;
}

/** `file-writer`: writing files, which pages refuse. */
export interface FileWriter {
  /**
   * Writes a file that appears under its name only when it is complete.
   *
   * @throws CheckpointError, or RwkvError in a page, when it cannot be written
   */
  writeFileAtomically(path: string, write: (file: FileAppender) => Promise<void>): Promise<void>;
}

/** Appends to a file and knows its position. */
export interface FileAppender {
  readonly position: number;
  append(bytes: Uint8Array): Promise<void>;
  /** Overwrites bytes written before. */
  patch(position: number, bytes: Uint8Array): Promise<void>;
}

/** `checksum`. */
export interface Checksum {
  /** CRC-32 of `bytes`, continued from `crc` (0 to start); an unsigned 32-bit integer. */
  crc32(bytes: Uint8Array, crc?: number): number;
}

/** `compute-workers`: the kernels' WebAssembly and the threads that run it. */
export interface ComputeWorkers {
  /** Whether memory can be shared with workers. */
  readonly canShareMemory: boolean;
  /** A file of the package's dist folder, and where it is. */
  readKernels(name: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; location: string }>;
  /**
   * Starts a compute thread.
   *
   * @param start what its script is started with: the first message, or the worker's data
   * @param onError called when it cannot be started, fails outside a pass, or ends unasked
   */
  startWorker<Message>(
    start: object,
    onMessage: (message: Message) => void,
    onError: (error: Error) => void,
  ): ComputeWorker;
}

/** `training-kernels`: those that training and the lab need beside the others. */
export interface TrainingKernels {
  readTrainingKernels: ComputeWorkers["readKernels"];
}

/** A compute thread. */
export interface ComputeWorker {
  /** Whether it keeps the process alive. */
  keepAlive(yes: boolean): void;
  terminate(): Promise<void>;
}
