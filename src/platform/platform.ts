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
  /** The World vocabulary in the package. */
  readonly packagedVocabulary: string;
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

/** What the bytes of a file add up to. */
export interface Sum {
  /** Git's SHA-1 has the words "blob" and the size before the bytes. */
  readonly algorithm: "sha256" | "git-sha1";
  /** In lower case. */
  readonly hex: string;
}

/** A sum of bytes that come one after another. */
export interface Hasher {
  update(bytes: Uint8Array): void;
  /** Ends it. @returns the sum, in lower-case hexadecimal digits */
  hex(): string;
}

/** `model-store`: models that were downloaded, in the cache of Python's huggingface_hub, or a page's private file system. */
export interface ModelStores {
  /** Where the hub is, and how it may be asked. @throws RwkvError for a setting that cannot be used */
  hubSettings(): Promise<{ endpoint: string; token?: string; offline: boolean; seesRedirects: boolean }>;
  /** @throws RwkvError where nothing can be stored */
  openModelStore(): Promise<ModelStore>;
}

/** A file that is kept, by where it came from. */
export interface StoredName {
  /** owner/name on the hub, the URL of a file elsewhere, or local: and the name of a file that the user gave. */
  readonly repository: string;
  /** What was asked for: a branch, a tag or a commit. */
  readonly revision: string;
  /** Its path in the repository. */
  readonly file: string;
}

/** A file that is to be kept. */
export interface StorableFile extends StoredName {
  readonly commit: string;
  /** The name of its content. */
  readonly etag: string;
  readonly size: number;
}

/** A file that is to be removed, or all of a repository: of a revision, of a commit, or of all. */
export interface RemovableName {
  readonly repository: string;
  readonly file?: string | undefined;
  readonly revision?: string | undefined;
  readonly commit?: string | undefined;
}

/** What is kept of a repository. */
export interface StoredModel {
  readonly repository: string;
  readonly file: string;
  /** Branches and tags that stand for it. */
  readonly revisions: readonly string[];
  readonly commit: string;
  /** Bytes that are here: of a file whose download was not finished, a part. */
  readonly bytes: number;
  /** Bytes of the whole file; absent where a download ended before that was written down. */
  readonly size?: number;
  readonly complete: boolean;
  /** What `load` takes; absent until it is complete. */
  readonly path?: string;
}

/** Files of models, by where they came from and by their content. */
export interface ModelStore {
  /** Where it is, for messages. */
  readonly location: string;
  /** Whether it is a page's, which keeps files of any server and of the user; the hub's cache is for the hub's alone. */
  readonly isOfPage: boolean;
  /** The path of a whole file, if it is there. */
  find(name: StoredName): Promise<string | undefined>;
  /**
   * Opens a file for writing, or what there is of it; waits while another process or tab writes it.
   *
   * @param onWait called once if another one does
   * @returns the path of the file if its content is there
   * @throws RwkvError when there is no room for it; the signal's reason
   */
  begin(file: StorableFile, signal?: AbortSignal, onWait?: () => void): Promise<PartialFile | string>;
  /**
   * Waits until no other tab does something of this name, then does it; of a page's store alone.
   *
   * @param bytes that it will write
   * @throws RwkvError when there is no room for them; the signal's reason
   */
  alone?<T>(name: string, bytes: number, work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Does something of this name now, or not at all where a tab does something of it; of a page's store alone. */
  ifAlone?(name: string, work: () => Promise<void>): Promise<void>;
  list(): Promise<StoredModel[]>;
  /**
   * Removes what is named.
   *
   * @returns the bytes that were freed, none of what another revision stands for, too; undefined where nothing was there
   * @throws RwkvError in a page while it is being downloaded
   */
  remove(name: RemovableName): Promise<number | undefined>;
}

/** A file in chunks of one size, of which any may be there. */
export interface PartialFile {
  readonly chunkSize: number;
  /** Whether a chunk is there. */
  has(chunk: number): boolean;
  write(chunk: number, bytes: Uint8Array): Promise<void>;
  read(chunk: number): Promise<Uint8Array>;
  /** The path that the file will have. */
  readonly path: string;
  /** Opens it for reading; what was opened stays readable when the file is put in its place. */
  openReader(): Promise<PartialReader>;
  /** The version of the file as its server tells it, for requests that continue. */
  readonly version: string | undefined;
  setVersion(version: string | undefined): Promise<void>;
  /** Drops all chunks. */
  restart(): Promise<void>;
  /** Puts the file in its place; all chunks are there. @returns its path */
  finish(): Promise<string>;
  /** Lets others write. What is there stays. */
  close(): Promise<void>;
}

/** Reads what is there of a file. */
export interface PartialReader {
  /** Of a file that can be mapped when it is whole. */
  readonly descriptor?: number | undefined;
  /** Reads a range of chunks that are there. @throws CheckpointError when it cannot be read */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** `checksum`. */
export interface Checksum {
  /** A sum. @param size of all bytes that will come */
  createHasher(algorithm: Sum["algorithm"], size: number): Promise<Hasher>;
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

/** `gpu`: where GPUs are found. */
export interface Gpus {
  /** Where adapters come from. @throws BackendError where there is no WebGPU, with what would bring it */
  openGpu(): Promise<GPU>;
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
