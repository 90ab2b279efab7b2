// Opens a checkpoint, whatever it is: a file of any supported format (told by its content, not its name), an index of
// shards, or a folder that holds one of these. Only directories are read.

import { basename, dirname, embeddedModel, fileSize, fileSource, join, listFolder, readText } from "#platform/files";
import { CheckpointError } from "../errors.js";
import { type ByteSource, blobSource, bytesSource, readRange } from "./byte-source.js";
import type { Checkpoint, CheckpointFormat, StoredTensor } from "./checkpoint.js";
import { readPth } from "./pth.js";
import { looksLikeLegacyPth, readLegacyPth } from "./pth-legacy.js";
import { looksLikeSafetensors, readSafetensors } from "./safetensors.js";
import { looksLikeZip } from "./zip-directory.js";

/** One entry a format: how to know it from the first bytes, and how to read its directory. */
const formats: readonly {
  format: CheckpointFormat;
  matches(start: Uint8Array): boolean;
  read(source: ByteSource): Promise<Map<string, StoredTensor>>;
}[] = [
  { format: "pth", matches: looksLikeZip, read: readPth },
  { format: "pth (legacy)", matches: looksLikeLegacyPth, read: readLegacyPth },
  { format: "safetensors", matches: looksLikeSafetensors, read: readSafetensors },
];

/** Files a folder is searched for, in this order; then any file with a checkpoint's ending, if there is exactly one. */
const folderFiles = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
const endings = /\.(pth|safetensors|pt|bin)$/i;
const maxJsonSize = 2 ** 20;

/**
 * Opens a checkpoint file, an index of shards (`model.safetensors.index.json`) or a folder with either.
 *
 * @param input a path (in a page a URL; a folder's ends in a slash), or the file itself
 * @param onDownload told of what has come of a file from a web server
 * @throws CheckpointError
 */
export async function openCheckpoint(
  input: string | Blob | Uint8Array,
  onDownload?: (file: string, done: number, total: number) => void,
): Promise<Checkpoint> {
  if (typeof input === "string") return openPath(input, onDownload);
  const source = input instanceof Uint8Array ? bytesSource("bytes", input) : blobSource(input);
  return { name: source.name, ...(await readDirectory(source)), close: () => source.close() };
}

async function openPath(path: string, onDownload?: Parameters<typeof openCheckpoint>[1]): Promise<Checkpoint> {
  const file = await checkpointFile(path);
  const shards = basename(file).endsWith(".index.json") ? await shardsOf(file) : [file];
  const sources: ByteSource[] = [];
  const close = async () => void (await Promise.all(sources.map((source) => source.close())));
  try {
    const tensors = new Map<string, StoredTensor>();
    let format: CheckpointFormat = "safetensors";
    for (const shard of shards) {
      const source = await fileSource(shard, (done, total) => onDownload?.(shard, done, total));
      sources.push(source);
      const directory = await readDirectory(source);
      format = directory.format;
      for (const [name, tensor] of directory.tensors) {
        if (tensors.has(name)) throw new CheckpointError(shard, `tensor ${name} stands in two shards`);
        tensors.set(name, tensor);
      }
    }
    const config = file === embeddedModel ? undefined : await readJson(join(dirname(file), "config.json"));
    return { name: path, format, tensors, close, ...(config ? { config } : {}) };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Reads the directory of one file, whose format is told by its first bytes.
 *
 * @throws CheckpointError
 */
export async function readDirectory(
  source: ByteSource,
): Promise<{ format: CheckpointFormat; tensors: Map<string, StoredTensor> }> {
  const start = await readRange(source, 0, Math.min(16, source.size));
  const found = formats.find((candidate) => candidate.matches(start));
  if (!found) {
    throw new CheckpointError(
      source.name,
      source.size === 0 ? "the file is empty" : "neither a PyTorch (.pth) nor a safetensors checkpoint",
    );
  }
  return { format: found.format, tensors: await found.read(source) };
}

/** The file that a path stands for: itself, or the checkpoint in that folder. */
async function checkpointFile(path: string): Promise<string> {
  const names = await listFolder(path, folderFiles);
  if (!names) return path;
  const known = folderFiles.find((name) => names.includes(name));
  if (known) return join(path, known);
  const candidates = names.filter((name) => endings.test(name));
  if (candidates.length === 1) return join(path, candidates[0] as string);
  throw new CheckpointError(
    path,
    candidates.length === 0
      ? "no checkpoint (.pth, .safetensors) in this folder"
      : `several checkpoints in this folder, name one: ${candidates.sort().join(", ")}`,
  );
}

/** The shard files of an index, each once. Shards lie beside their index; a name that leads elsewhere is refused. */
async function shardsOf(index: string): Promise<string[]> {
  const json = await readJson(index);
  const map = json?.["weight_map"];
  if (typeof map !== "object" || map === null) throw new CheckpointError(index, "expected an object weight_map");
  const names = new Set<string>();
  for (const [tensor, name] of Object.entries(map)) {
    if (typeof name !== "string" || name !== basename(name) || name === "..") {
      throw new CheckpointError(
        index,
        `tensor ${tensor}: expected the name of a file beside the index, found ${typeof name === "string" ? name : typeof name}`,
      );
    }
    names.add(name);
  }
  return [...names].sort().map((name) => join(dirname(index), name));
}

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  const size = await fileSize(path);
  if (size === undefined) return undefined;
  if (size > maxJsonSize) throw new CheckpointError(path, `expected at most ${maxJsonSize} bytes of JSON`);
  let value: unknown;
  try {
    value = JSON.parse(await readText(path));
  } catch (cause) {
    throw new CheckpointError(path, "not valid JSON", { cause });
  }
  if (typeof value !== "object" || value === null) throw new CheckpointError(path, "expected a JSON object");
  return value as Record<string, unknown>;
}
