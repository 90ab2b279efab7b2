// The files of a run. Each is written under another name and renamed, so that whenever the process is killed the folder holds a
// whole model and everything that resuming needs. The log is appended to, and truncated when a run resumes from an earlier step.
//
//   model.safetensors       the model as it was saved last          training.json   the recipe
//   tokenizer.json          its tokenizer                           log.jsonl       a line for every step
//   checkpoint.safetensors  weights, moments, step: for resuming    loss.svg        the curve
//   state.rwkv              a tuned state                           adapter.safetensors  what LoRA learned, without the base model

import { appendFile, mkdir, readdir, readFile, rm, rmdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { writeFileAtomically } from "#platform/file-writer";
import type { Parameter } from "../backends/training.js";
import type { Checkpoint, Metadata } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { readTensorInto } from "../checkpoints/read-tensor.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { CheckpointError, TrainingError } from "../errors.js";
import { ownAdapterName } from "../models/adapter-file.js";
import { between, type Check, whole } from "./checks.js";
import { tokenizerFiles } from "./existing-tokenizer.js";
import { parseRecipe, type Recipe } from "./recipe.js";
import { lockFolder, type Unlock } from "./run-lock.js";

const modelFile = "model.safetensors";
const checkpointFile = "checkpoint.safetensors";
const recipeFile = "training.json";
const logFile = "log.jsonl";
const curveFile = "loss.svg";
const stateFile = "state.rwkv";
const runFiles = [
  modelFile,
  checkpointFile,
  ownAdapterName,
  recipeFile,
  logFile,
  curveFile,
  stateFile,
  ...tokenizerFiles,
];

/** Bytes that a recipe, and what a checkpoint says beside its tensors, take at most. */
const maxRecipeSize = 2 ** 20;
const maxProgressSize = 4096;

/** What a checkpoint says beside its tensors. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Seconds that they took. */
  readonly seconds: number;
  /** CRC-32 of the training tokens, so that a run is not resumed with different ones. */
  readonly data: number;
}

const progressChecks: { readonly [Name in keyof Progress]: Check } = {
  step: whole(0, 2 ** 31),
  seconds: between(0, Number.MAX_VALUE),
  data: whole(0, 2 ** 32 - 1),
};

/** A block of floats that a run carries from step to step. */
export interface CarriedState {
  readonly name: string;
  readonly values: Float32Array;
}

/** A line of log.jsonl. */
export interface LogEntry {
  readonly step: number;
  readonly [key: string]: number | string | undefined;
}

/** The folder of a run, which nobody else trains in while it is open. */
export class RunFolder {
  /** As it was given. */
  readonly path: string;
  /** Whether there is something to resume: the run was saved at least once. */
  saved = false;
  /** Whether its files are those of a run. */
  readonly #begunBefore: boolean;
  readonly #root: string;
  readonly #unlock: Unlock;
  /** What a run leaves behind no trace of if it ends before it was ever saved. */
  readonly #unsaved: string[] = [];

  private constructor(path: string, root: string, unlock: Unlock, begunBefore: boolean) {
    this.path = path;
    this.#begunBefore = begunBefore;
    this.#root = root;
    this.#unlock = unlock;
  }

  /**
   * Opens the folder of a run that was begun.
   *
   * @throws TrainingError when there is none, or when it is being trained in
   */
  static async resume(path: string): Promise<RunFolder> {
    const root = resolve(path);
    if (!(await exists(join(root, recipeFile)))) {
      throw new TrainingError(`${join(path, recipeFile)}: expected the ${recipeFile} of a run to resume, found none`);
    }
    const folder = new RunFolder(path, root, await lockFolder(root), true);
    folder.saved = await exists(folder.file(checkpointFile));
    await folder.#removeUnfinished();
    return folder;
  }

  /**
   * Makes a folder for a new run.
   *
   * @throws TrainingError when it cannot be made, holds a run or a model already, or is being trained in
   */
  static async create(path: string): Promise<RunFolder> {
    const root = resolve(path);
    const made = await mkdir(root, { recursive: true }).catch((cause: NodeJS.ErrnoException) => {
      throw new TrainingError(`${path}: the folder cannot be made (${cause.code})`, { cause });
    });
    const unlock = await lockFolder(root);
    const folder = new RunFolder(path, root, unlock, await exists(join(root, recipeFile)));
    try {
      if (await exists(folder.file(checkpointFile))) {
        throw new TrainingError(
          `${path}: this folder already contains a run; resume it (--resume), or choose another folder`,
        );
      }
      // With a recipe it is that of a run which was killed before its first save was complete.
      if ((await exists(folder.file(modelFile))) && !folder.#begunBefore) {
        throw new TrainingError(
          `${path}: this folder contains a model, which the run would overwrite; choose another folder`,
        );
      }
      await folder.#removeUnfinished();
      if (made !== undefined) folder.#unsaved.push(root);
      return folder;
    } catch (error) {
      await folder.close();
      throw error;
    }
  }

  /** Releases the folder for other runs. The files of a run that was never saved are removed. */
  async close(): Promise<void> {
    if (!this.saved) {
      for (const path of this.#unsaved.toReversed()) {
        await (path === this.#root ? rmdir(path) : rm(path, { force: true })).catch(() => {});
      }
    }
    await this.#unlock();
  }

  file(name: string): string {
    return join(this.#root, name);
  }

  /** Writes the files that a new run begins with; the recipe last, since with it a run can be resumed. */
  async begin(recipe: Recipe): Promise<void> {
    for (const name of [logFile, curveFile, stateFile, ownAdapterName]) await rm(this.file(name), { force: true });
    this.#unsaved.push(this.file(recipeFile));
    await this.writeRecipe(recipe);
  }

  /** @throws TrainingError where it would overwrite a tokenizer that is not the run's */
  async writeTokenizer({ name, content }: { name: string; content: string | Uint8Array }): Promise<void> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const there = await readFile(this.file(name)).catch(() => undefined);
    if (there?.equals(bytes)) return;
    if (there && !this.#begunBefore) {
      throw new TrainingError(
        `${join(this.path, name)}: the run would overwrite this tokenizer; choose another folder`,
      );
    }
    this.#unsaved.push(this.file(name));
    await this.writeBytes(name, bytes);
  }

  /** The file of the run's tokenizer; undefined where there is none, as for bytes. */
  async tokenizerFile(): Promise<string | undefined> {
    for (const name of tokenizerFiles) if (await exists(this.file(name))) return this.file(name);
    return undefined;
  }

  async writeRecipe(recipe: Recipe): Promise<void> {
    await this.writeText(recipeFile, `${JSON.stringify(recipe, null, 2)}\n`);
  }

  async writeState(bytes: Uint8Array): Promise<void> {
    await this.writeBytes(stateFile, bytes);
  }

  async writeCurve(svg: string): Promise<void> {
    await this.writeText(curveFile, svg);
  }

  async writeText(name: string, text: string): Promise<void> {
    await this.writeBytes(name, new TextEncoder().encode(text));
  }

  async writeBytes(name: string, bytes: Uint8Array): Promise<void> {
    await writeFileAtomically(this.file(name), (file) => file.append(bytes));
  }

  /** The recipe of the run in the folder. @throws TrainingError when there is none that can be used */
  async readRecipe(): Promise<Recipe> {
    const file = join(this.path, recipeFile);
    const { size } = await stat(this.file(recipeFile));
    if (size > maxRecipeSize)
      throw new TrainingError(`${file}: expected at most ${maxRecipeSize} bytes, found ${size}`);
    return parseRecipe(file, await readFile(this.file(recipeFile), "utf8"));
  }

  /** The log up to a step; entries behind it, of a run that was killed after its last save, are dropped. */
  async readLog(step: number): Promise<LogEntry[]> {
    const text = await readFile(this.file(logFile), "utf8").catch(() => "");
    const entries: LogEntry[] = [];
    for (const line of text.split("\n")) {
      try {
        const entry = JSON.parse(line) as LogEntry;
        if (Number.isInteger(entry.step) && entry.step <= step) entries.push(entry);
      } catch {
        // The last line of a killed run may be cut.
      }
    }
    await this.writeText(logFile, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    return entries;
  }

  /** @throws CheckpointError when the disk is full */
  async log(entry: LogEntry): Promise<void> {
    await appendFile(this.file(logFile), `${JSON.stringify(entry)}\n`).catch((cause: NodeJS.ErrnoException) => {
      throw new CheckpointError(this.file(logFile), `cannot be written (${cause.code})`, { cause });
    });
  }

  async saveModel(tensors: readonly WritableTensor[], metadata: Metadata): Promise<void> {
    await writeSafetensors(this.file(modelFile), tensors, { metadata });
  }

  async saveAdapter(tensors: readonly WritableTensor[], metadata: Metadata): Promise<void> {
    await writeSafetensors(this.file(ownAdapterName), tensors, { metadata });
  }

  async saveCheckpoint(
    parameters: readonly Parameter[],
    states: readonly CarriedState[],
    progress: Progress,
  ): Promise<void> {
    const tensor = (name: string, shape: readonly number[], values: Float32Array): WritableTensor => {
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      return { name, dtype: "f32", shape, bytes: () => [bytes] };
    };
    const json = new TextEncoder().encode(JSON.stringify(progress));
    await writeSafetensors(this.file(checkpointFile), [
      { name: "progress", dtype: "u8", shape: [json.length], bytes: () => [json] },
      ...parameters.flatMap((p) => [
        tensor(`weight/${p.name}`, p.shape, p.values),
        tensor(`first/${p.name}`, p.shape, p.firstMoment),
        tensor(`second/${p.name}`, p.shape, p.secondMoment),
      ]),
      ...states.map(({ name, values }) => tensor(`state/${name}`, [values.length], values)),
    ]);
    this.saved = true;
  }

  /** How far the run in the folder is; undefined where it was never saved. @throws CheckpointError, TrainingError */
  async readProgress(): Promise<Progress | undefined> {
    if (!this.saved) return undefined;
    const checkpoint = await openCheckpoint(this.file(checkpointFile));
    try {
      return await progressOf(join(this.path, checkpointFile), checkpoint);
    } finally {
      await checkpoint.close();
    }
  }

  /**
   * Reads a checkpoint into the parameters and states.
   *
   * @throws TrainingError when it is of a model of another shape
   */
  async loadCheckpoint(parameters: readonly Parameter[], states: readonly CarriedState[]): Promise<void> {
    const path = join(this.path, checkpointFile);
    const checkpoint = await openCheckpoint(this.file(checkpointFile));
    try {
      const read = async (name: string, shape: readonly number[], values: Float32Array) => {
        const tensor = checkpoint.tensors.get(name);
        if (tensor?.dtype !== "f32" || tensor.shape.join() !== shape.join()) {
          const found = tensor ? `[${tensor.shape.join(", ")}] of ${tensor.dtype}` : "none";
          throw new TrainingError(
            `${path}: expected ${name} [${shape.join(", ")}], found ${found}: this is the checkpoint of another model`,
          );
        }
        await readTensorInto(tensor, "f32", new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      };
      const wanted = parameters.flatMap((p) => [
        [`weight/${p.name}`, p.shape, () => p.values] as const,
        [`first/${p.name}`, p.shape, () => p.firstMoment] as const,
        [`second/${p.name}`, p.shape, () => p.secondMoment] as const,
      ]);
      for (const [name, shape, values] of wanted) await read(name, shape, values());
      for (const { name, values } of states) await read(`state/${name}`, [values.length], values);
    } finally {
      await checkpoint.close();
    }
  }

  /** Removes files that processes which were killed had not written to their end. */
  async #removeUnfinished(): Promise<void> {
    for (const name of await readdir(this.#root)) {
      const unfinished = name.endsWith(".part") && runFiles.some((file) => name.startsWith(`${file}.`));
      if (unfinished) await rm(this.file(name), { force: true });
    }
  }
}

async function progressOf(path: string, checkpoint: Checkpoint): Promise<Progress> {
  const tensor = checkpoint.tensors.get("progress");
  const size = tensor?.shape[0] ?? 0;
  if (tensor?.dtype !== "u8" || tensor.shape.length !== 1 || size > maxProgressSize) {
    throw new TrainingError(`${path}: expected a tensor progress of at most ${maxProgressSize} bytes, found none`);
  }
  const bytes = new Uint8Array(size);
  await tensor.source.readInto(tensor.offset, bytes);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new TrainingError(`${path}: progress: not valid JSON`, { cause });
  }
  for (const [name, check] of Object.entries(progressChecks)) {
    const found = (value as Record<string, unknown> | null)?.[name];
    const expected = check(found);
    if (expected !== undefined) {
      throw new TrainingError(
        `${path}: progress, ${name}: expected ${expected}, found ${JSON.stringify(found) ?? "none"}`,
      );
    }
  }
  return value as Progress;
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
