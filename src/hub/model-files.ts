// Which files of a repository a model consists of: the one that was named, or the one that can be meant, with its shards and with what is
// read beside it.

import { CheckpointError } from "../errors.js";
import type { HubName } from "./model-name.js";
import type { HubFile } from "./repository.js";

const checkpoints = /\.(pth|safetensors|gguf|pt|bin)$/i;
const indexes = /\.(safetensors|bin)\.index\.json$/i;
/** Names that Hugging Face gives to models, beside which their config.json lies; the likeliest first. */
const huggingFaceFiles = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];
const shard = /^(.*)-\d+-of-\d+(\.\w+)$/;
const besideModels = /^(config\.json|.*tokenizer\.json|rwkv_vocab_.*\.txt)$/i;
/** Files beside a model are small. */
const mostBeside = 2 ** 26;

const folderOf = (path: string) => path.slice(0, path.lastIndexOf("/") + 1);
const baseOf = (path: string) => path.slice(path.lastIndexOf("/") + 1);

/** Whether a file is a whole model, so that the others of its repository need not be known. */
export function isWholeModel(file: string): boolean {
  const name = baseOf(file);
  return checkpoints.test(name) && isAllWeights(file) && !huggingFaceFiles.includes(name);
}

/** Whether the weights of a model are in its file alone, which is neither a shard nor an index of shards. */
export function isAllWeights(file: string): boolean {
  return !shard.test(baseOf(file)) && !/\.json$/i.test(file);
}

/**
 * The files of a model, the one to open last.
 *
 * @param all files of the repository, or those that are here
 * @throws CheckpointError where none or several can be meant
 */
export function modelFiles<File extends Pick<HubFile, "file" | "size">>(
  { text, file, quantization }: HubName,
  all: readonly File[],
): File[] {
  const main =
    quantization !== undefined
      ? quantized(text, quantization, all)
      : file !== undefined && (checkpoints.test(file) || indexes.test(file))
        ? all.find((one) => one.file === file)
        : inFolder(text, file === undefined ? "" : `${file}/`, all);
  if (!main) throw new CheckpointError(text, "no such file in this repository");
  const folder = folderOf(main.file);
  const siblings = all.filter((one) => folderOf(one.file) === folder && one !== main);
  return [...siblings.filter((one) => belongs(baseOf(one.file), one.size, baseOf(main.file))), main];
}

/** Whether a file in the folder of a model is a part of it or is read beside it. */
function belongs(name: string, size: number, main: string): boolean {
  const [, stem, ending] = shard.exec(name) ?? [];
  const [, mainStem, mainEnding] = shard.exec(main) ?? /^(.*)(\.\w+)\.index\.json$/.exec(main) ?? [];
  if (stem !== undefined && stem === mainStem && ending === mainEnding) return true;
  return huggingFaceFiles.includes(main) && besideModels.test(name) && size <= mostBeside;
}

/** The GGUF of a quantization; of one in shards the first. */
function quantized<File extends Pick<HubFile, "file">>(text: string, wanted: string, all: readonly File[]): File {
  const files = all.filter(({ file }) => /\.gguf$/i.test(file) && !/-0*([2-9]|[1-9]\d+)-of-\d+\.gguf$/i.test(file));
  const named = files.filter(({ file }) => {
    const at = baseOf(file).toLowerCase().indexOf(wanted.toLowerCase());
    const before = baseOf(file)[at - 1] ?? "-";
    const after = baseOf(file)[at + wanted.length] ?? "-";
    return at >= 0 && /[-._]/.test(before) && /[-.]/.test(after);
  });
  // Beside model-Q4_K_M.gguf there may be one with more words behind it.
  const exact = named.filter(({ file }) => file.toLowerCase().endsWith(`${wanted.toLowerCase()}.gguf`));
  const [found, ...others] = exact.length > 0 ? exact : named;
  const list = (of: readonly File[]) => of.map(({ file }) => file).join(", ");
  if (found && others.length === 0) return found;
  if (found) {
    throw new CheckpointError(
      text,
      `several files are of this quantization; name one of them: ${list([found, ...others])}`,
    );
  }
  throw new CheckpointError(
    text,
    files.length === 0 ? "no GGUF files in this repository" : `no GGUF of this quantization; there are ${list(files)}`,
  );
}

/** The model in a folder of the repository. */
function inFolder<File extends Pick<HubFile, "file">>(text: string, folder: string, all: readonly File[]): File {
  const inside = all.filter(({ file }) => folderOf(file) === folder);
  for (const name of huggingFaceFiles) {
    const known = inside.find(({ file }) => baseOf(file) === name);
    if (known) return known;
  }
  const [found, ...others] = inside.filter(({ file }) => checkpoints.test(file));
  if (found && others.length === 0) return found;
  const where = folder === "" ? "in this repository" : `in its folder ${folder}`;
  if (found) {
    const names = [found, ...others].map(({ file }) => file).join(", ");
    throw new CheckpointError(text, `several models ${where}; name one of them: ${names}`);
  }
  throw new CheckpointError(text, `no model (.pth, .safetensors, .gguf) ${where}`);
}
