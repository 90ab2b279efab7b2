// Opens a checkpoint, whatever it is: a file of any supported format (told by its content, not its name), an index of
// shards, or a folder that holds one of these. Only directories are read.

import { basename, dirname, embeddedModel, fileSize, fileSource, join, listFolder, readText } from "#platform/files";
import { type ByteSource, readRange } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import { describedBytes, describeForeignFile } from "../foreign-file.js";
import type { Checkpoint, CheckpointFormat, Directory, StoredTensor } from "./checkpoint.js";
import { type CheckpointInput, resolveInput } from "./checkpoint-input.js";
import { readPth } from "./pth.js";
import { looksLikeLegacyPth, readLegacyPth } from "./pth-legacy.js";
import { looksLikeSafetensors, readSafetensors } from "./safetensors.js";
import { looksLikeZip } from "./zip-directory.js";

/** One entry a format: how to know it from the first bytes, and how to read its directory. */
const formats: readonly {
  format: CheckpointFormat;
  matches(start: Uint8Array): boolean;
  read(source: ByteSource): Promise<Directory>;
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
/** Hidden files, which macOS leaves beside others, and what Hugging Face's Trainer keeps beside a model. */
const passedOver = /^(\.|(optimizer|scheduler|scaler)\.pt$|training_args\.bin$|rng_state.*\.pth$)/;
/** The names that Hugging Face gives to a model's files. A config.json beside one of these is the model's own. */
const huggingFaceNames = /^(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?$/;
const maxJsonSize = 2 ** 20;

/**
 * Opens a checkpoint file, an index of shards (`model.safetensors.index.json`) or a folder with either.
 *
 * @param input a path (in a page a URL; a folder's ends in a slash), or the file itself
 * @param onDownload told of what has come of a file from a web server
 * @throws CheckpointError, OptionError
 */
export async function openCheckpoint(
  input: CheckpointInput,
  onDownload?: (file: string, done: number, total: number) => void,
): Promise<Checkpoint> {
  const resolved = resolveInput(input);
  if (typeof resolved === "string") return openPath(resolved, onDownload);
  return { name: resolved.name, ...(await readDirectory(resolved)), close: () => resolved.close() };
}

async function openPath(path: string, onDownload?: Parameters<typeof openCheckpoint>[1]): Promise<Checkpoint> {
  const shards = await checkpointFiles(path);
  const sources: ByteSource[] = [];
  const close = async () => void (await Promise.all(sources.map((source) => source.close())));
  try {
    const tensors = new Map<string, StoredTensor>();
    const metadata: Record<string, string> = {};
    let format: CheckpointFormat = "safetensors";
    for (const shard of shards) {
      const source = await fileSource(shard, (done, total) => onDownload?.(shard, done, total));
      sources.push(source);
      const directory = await readDirectory(source);
      format = directory.format;
      Object.assign(metadata, directory.metadata);
      for (const [name, tensor] of directory.tensors) {
        if (tensors.has(name)) throw new CheckpointError(shard, `tensor ${name} is in another shard too`);
        tensors.set(name, tensor);
      }
    }
    const config = path === embeddedModel ? undefined : await configBeside(shards[0] as string);
    return { name: path, format, tensors, metadata, close, ...(config ? { config } : {}) };
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
export async function readDirectory(source: ByteSource): Promise<Directory & { format: CheckpointFormat }> {
  const start = await readRange(source, 0, Math.min(describedBytes, source.size));
  const found = formats.find((candidate) => candidate.matches(start));
  // safetensors begin with a length, not with bytes of their own, so those of another format may look like one; but no header
  // that is read is so long that its upper four bytes are used.
  const certain = found && (found.format !== "safetensors" || start.subarray(4, 8).every((byte) => byte === 0));
  const foreign = certain ? undefined : describeForeignFile(start);
  if (!found || foreign) {
    const reason = source.size === 0 ? "the file is empty" : "neither a PyTorch (.pth) nor a safetensors checkpoint";
    throw new CheckpointError(source.name, foreign ? `this is ${foreign}` : reason);
  }
  return { format: found.format, ...(await found.read(source)) };
}

/** The files that a path stands for: itself, the shards of an index, or the checkpoint in that folder. */
async function checkpointFiles(path: string): Promise<string[]> {
  const names = await listFolder(path, folderFiles);
  const found = names ? checkpointIn(path, names) : path;
  if (typeof found !== "string") return found;
  return basename(found).endsWith(".index.json") ? shardsOf(found) : [found];
}

/** The checkpoint in a folder; a list where it is all shards of one set, which need no index to be found. */
function checkpointIn(folder: string, names: readonly string[]): string | string[] {
  const known = folderFiles.find((name) => names.includes(name));
  if (known) return join(folder, known);
  const candidates = names.filter((name) => endings.test(name) && !passedOver.test(name)).sort();
  const [first, ...others] = candidates;
  if (first === undefined) throw new CheckpointError(folder, "no checkpoint (.pth, .safetensors) in this folder");
  if (others.length === 0) return join(folder, first);
  const [, stem, count, ending] = /^(.*)-\d+-of-(\d+)(\.\w+)$/.exec(first) ?? [];
  const isShard = (name: string, i: number) => {
    const number = String(i + 1).padStart(count?.length ?? 0, "0");
    return name === `${stem}-${number}-of-${count}${ending}`;
  };
  if (candidates.length === Number(count) && candidates.every(isShard)) {
    return candidates.map((name) => join(folder, name));
  }
  throw new CheckpointError(folder, `several checkpoints in this folder, name one: ${candidates.join(", ")}`);
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

/**
 * The config.json of a model. Only beside Hugging Face's own names can it be known to be of that model: a .pth in a folder of
 * downloads may have any other program's config.json for a neighbour.
 */
async function configBeside(file: string): Promise<Record<string, unknown> | undefined> {
  if (!huggingFaceNames.test(basename(file))) return undefined;
  const config = await readJson(join(dirname(file), "config.json"));
  const type = config?.["model_type"];
  return typeof type === "string" && !/^rwkv/i.test(type) ? undefined : config;
}

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  const size = await fileSize(path);
  if (size === undefined) return undefined;
  if (size > maxJsonSize) throw new CheckpointError(path, `expected at most ${maxJsonSize} bytes of JSON`);
  let value: unknown;
  try {
    value = JSON.parse((await readText(path)).replace(/^\uFEFF/, ""));
  } catch (cause) {
    throw new CheckpointError(path, "not valid JSON", { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CheckpointError(path, "expected a JSON object");
  }
  return value as Record<string, unknown>;
}
