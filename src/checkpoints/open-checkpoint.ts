// Opens a checkpoint: a file of any supported format, which its content says and not its name, an index of shards, or
// a folder that contains one of these. Only directories are read.

import { basename, dirname, embeddedModel, fileSize, fileSource, join, listFolder, readText } from "#platform/files";
import { type ByteSource, readRange } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import { describedBytes, describeForeignFile } from "../foreign-file.js";
import type { Checkpoint, CheckpointFormat, Directory, Metadata, StoredTensor } from "./checkpoint.js";
import { type CheckpointInput, resolveInput } from "./checkpoint-input.js";
import { looksLikeGgml, readGgml } from "./ggml.js";
import { looksLikeGguf, readGguf } from "./gguf.js";
import { checkShards, ggufShardNames } from "./gguf-shards.js";
import { readPth } from "./pth.js";
import { looksLikeLegacyPth, readLegacyPth } from "./pth-legacy.js";
import { looksLikeSafetensors, readSafetensors } from "./safetensors.js";
import { looksLikeZip } from "./zip-directory.js";

/** One entry for each format: how to recognise it by its first bytes, and how to read its directory. */
const formats: readonly {
  format: CheckpointFormat;
  matches(start: Uint8Array): boolean;
  read(source: ByteSource): Promise<Directory>;
}[] = [
  { format: "pth", matches: looksLikeZip, read: readPth },
  { format: "pth (legacy)", matches: looksLikeLegacyPth, read: readLegacyPth },
  { format: "gguf", matches: looksLikeGguf, read: readGguf },
  { format: "ggml", matches: looksLikeGgml, read: readGgml },
  { format: "safetensors", matches: looksLikeSafetensors, read: readSafetensors },
];

/**
 * The files for which a folder is searched, in this order; then any file with a checkpoint's ending, if there is
 * exactly one.
 */
const folderFiles = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
const endings = /\.(pth|safetensors|gguf|pt|bin)$/i;
/**
 * Files that are skipped: hidden ones, which macOS creates beside others, and those that Hugging Face's Trainer keeps
 * beside a model.
 */
const skippedFiles = /^(\.|(optimizer|scheduler|scaler)\.pt$|training_args\.bin$|rng_state.*\.pth$)/;
/** The names that Hugging Face gives to a model's files. A config.json beside one of these belongs to the model. */
const huggingFaceNames = /^(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?$/;
const maxJsonSize = 2 ** 20;

/**
 * Opens a checkpoint file, an index of shards (`model.safetensors.index.json`) or a folder with either.
 *
 * @param input a path (in a page a URL; a folder's ends in a slash), or the file itself
 * @param onDownload called while a file is downloaded from a web server, with its name, the bytes received and the size
 * @throws CheckpointError when the file is missing, damaged or of an unknown format; OptionError for any other input
 */
export async function openCheckpoint(
  input: CheckpointInput,
  onDownload?: (file: string, done: number, total: number) => void,
): Promise<Checkpoint> {
  const resolved = resolveInput(input);
  if (typeof resolved === "string") return openPath(resolved, onDownload);
  const directory = await readDirectory(resolved);
  checkShards([{ file: resolved.name, ...directory }]);
  return { name: resolved.name, ...directory, close: () => resolved.close() };
}

async function openPath(path: string, onDownload?: Parameters<typeof openCheckpoint>[1]): Promise<Checkpoint> {
  const open = (shard: string) => fileSource(shard, (done, total) => onDownload?.(shard, done, total));
  return openShards(path, await checkpointFiles(path), open);
}

/**
 * Opens the checkpoint in one file, which the checkpoint then owns.
 *
 * @param path of the file, beside which others may lie
 * @throws as `openCheckpoint`
 */
export function openSource(path: string, source: ByteSource): Promise<Checkpoint> {
  return openShards(path, [path], async () => source);
}

async function openShards(
  path: string,
  shards: readonly string[],
  open: (shard: string) => Promise<ByteSource>,
): Promise<Checkpoint> {
  const sources: ByteSource[] = [];
  const close = async () => void (await Promise.all(sources.map((source) => source.close())));
  try {
    const tensors = new Map<string, StoredTensor>();
    const directories: (Directory & { file: string; format: CheckpointFormat })[] = [];
    for (const shard of shards) {
      const source = await open(shard);
      sources.push(source);
      const directory = await readDirectory(source);
      directories.push({ file: shard, ...directory });
      for (const [name, tensor] of directory.tensors) {
        if (tensors.has(name)) throw new CheckpointError(shard, `tensor ${name} occurs in another shard, too`);
        tensors.set(name, tensor);
      }
    }
    checkShards(directories);
    const config = path === embeddedModel ? undefined : await configBeside(shards[0] as string);
    const format = directories[0]?.format ?? "safetensors";
    const metadata = Object.assign({}, ...directories.map((directory) => directory.metadata)) as Metadata;
    const vocabulary = directories.find((directory) => directory.vocabulary)?.vocabulary;
    return {
      name: path,
      format,
      tensors,
      metadata,
      close,
      ...(vocabulary && { vocabulary }),
      ...(config && { config }),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Reads the directory of one file, whose first bytes say what format it has.
 *
 * @throws CheckpointError when the file is damaged or of an unknown format
 */
export async function readDirectory(source: ByteSource): Promise<Directory & { format: CheckpointFormat }> {
  const start = await readRange(source, 0, Math.min(describedBytes, source.size));
  const found = formats.find((candidate) => candidate.matches(start));
  // A safetensors file begins with a length and not with a magic number, so another format may look like one. But no
  // header that is accepted is so long that the upper four bytes of its length are used.
  const certain = found && (found.format !== "safetensors" || start.subarray(4, 8).every((byte) => byte === 0));
  const foreign = certain ? undefined : describeForeignFile(start);
  if (!found || foreign) {
    const reason =
      source.size === 0
        ? "the file is empty"
        : "neither a PyTorch (.pth), a safetensors, a GGUF nor an rwkv.cpp (.bin) checkpoint";
    throw new CheckpointError(source.name, foreign ? `this is ${foreign}` : reason);
  }
  return { format: found.format, ...(await found.read(source)) };
}

/** The files that a path stands for: the file itself, the shards of an index, or the checkpoint in a folder. */
async function checkpointFiles(path: string): Promise<string[]> {
  const names = await listFolder(path, folderFiles);
  const found = names ? checkpointIn(path, names) : path;
  if (typeof found !== "string") return found;
  if (basename(found).endsWith(".index.json")) return shardsOf(found);
  return ggufShardNames(basename(found))?.map((name) => join(dirname(found), name)) ?? [found];
}

/** The checkpoint in a folder, or a list of all shards of one set, which need no index. */
function checkpointIn(folder: string, names: readonly string[]): string | string[] {
  const known = folderFiles.find((name) => names.includes(name));
  if (known) return join(folder, known);
  const candidates = names.filter((name) => endings.test(name) && !skippedFiles.test(name)).sort();
  const [first, ...others] = candidates;
  if (first === undefined)
    throw new CheckpointError(folder, "no checkpoint (.pth, .safetensors, .gguf) in this folder");
  if (others.length === 0) return join(folder, first);
  const [, stem, count, ending] = /^(.*)-\d+-of-(\d+)(\.\w+)$/.exec(first) ?? [];
  const isShard = (name: string, i: number) => {
    const number = String(i + 1).padStart(count?.length ?? 0, "0");
    return name === `${stem}-${number}-of-${count}${ending}`;
  };
  if (candidates.length === Number(count) && candidates.every(isShard)) {
    return candidates.map((name) => join(folder, name));
  }
  throw new CheckpointError(folder, `several checkpoints in this folder; name one of them: ${candidates.join(", ")}`);
}

/** The distinct shard files of an index. Shards lie beside their index; a name that leads elsewhere is refused. */
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
 * The config.json of a model. It is certain to belong to the model only beside Hugging Face's own names: a .pth in a
 * folder of downloads may lie beside the config.json of any other program.
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
