// The files of a run. Each is written under another name and renamed, so that whenever the process is killed the folder holds a whole
// model and all that resuming needs; the log is appended to, and cut back when a run goes on from an earlier step.
//
//   model.safetensors       the model as it was saved last          training.json   the recipe
//   tokenizer.json          its tokenizer                           log.jsonl       a line for every step
//   checkpoint.safetensors  weights, moments, step: for resuming    loss.svg        the curve
//   state.rwkv              a tuned state

import { appendFile, mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomically } from "#platform/file-writer";
import type { Parameter } from "../backends/training.js";
import type { Metadata } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { readTensorInto } from "../checkpoints/read-tensor.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { TrainingError } from "../errors.js";
import type { Recipe } from "./options.js";

/** What a checkpoint says beside its tensors. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Seconds that they took. */
  readonly seconds: number;
  /** CRC-32 of the tokens that are learned from, so that a run does not go on with others. */
  readonly data: number;
}

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

export class RunFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** @throws TrainingError when it cannot be made, or holds a run already */
  async create(): Promise<void> {
    await mkdir(this.path, { recursive: true }).catch((cause: NodeJS.ErrnoException) => {
      throw new TrainingError(`${this.path}: the folder cannot be made (${cause.code})`, { cause });
    });
    if (await exists(this.file("checkpoint.safetensors"))) {
      throw new TrainingError(
        `${this.path}: a run is in this folder already; go on with it by resume (--resume), or choose another folder`,
      );
    }
  }

  async writeJson(name: string, value: unknown): Promise<void> {
    await this.writeText(name, `${JSON.stringify(value, null, 2)}\n`);
  }

  async writeText(name: string, text: string): Promise<void> {
    await this.writeBytes(name, new TextEncoder().encode(text));
  }

  async writeBytes(name: string, bytes: Uint8Array): Promise<void> {
    await writeFileAtomically(this.file(name), (file) => file.append(bytes));
  }

  /** @throws TrainingError when there is no such file */
  async readText(name: string): Promise<string> {
    return readFile(this.file(name), "utf8").catch((cause) => {
      throw new TrainingError(`${this.file(name)}: expected the ${name} of a run to go on with, found none`, { cause });
    });
  }

  /** The recipe of the run in the folder. @throws TrainingError when there is none */
  async readRecipe(): Promise<Recipe> {
    const text = await this.readText("training.json");
    try {
      return JSON.parse(text) as Recipe;
    } catch (cause) {
      throw new TrainingError(`${this.file("training.json")}: not valid JSON`, { cause });
    }
  }

  /** The log up to a step; entries behind it, of a run that was killed after its last save, are dropped. */
  async readLog(step: number): Promise<LogEntry[]> {
    const text = await readFile(this.file("log.jsonl"), "utf8").catch(() => "");
    const entries: LogEntry[] = [];
    for (const line of text.split("\n")) {
      try {
        const entry = JSON.parse(line) as LogEntry;
        if (entry.step <= step) entries.push(entry);
      } catch {
        // The last line of a killed run may be cut.
      }
    }
    await this.writeText("log.jsonl", entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    return entries;
  }

  async log(entry: LogEntry): Promise<void> {
    await appendFile(this.file("log.jsonl"), `${JSON.stringify(entry)}\n`);
  }

  async saveModel(tensors: readonly WritableTensor[], metadata: Metadata): Promise<void> {
    await writeSafetensors(this.file("model.safetensors"), tensors, { metadata });
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
    await writeSafetensors(this.file("checkpoint.safetensors"), [
      { name: "progress", dtype: "u8", shape: [json.length], bytes: () => [json] },
      ...parameters.flatMap((p) => [
        tensor(`weight/${p.name}`, p.shape, p.values),
        tensor(`first/${p.name}`, p.shape, p.firstMoment),
        tensor(`second/${p.name}`, p.shape, p.secondMoment),
      ]),
      ...states.map(({ name, values }) => tensor(`state/${name}`, [values.length], values)),
    ]);
  }

  /**
   * Reads a checkpoint into the parameters and states.
   *
   * @throws TrainingError when it is of a model of another shape
   */
  async loadCheckpoint(parameters: readonly Parameter[], states: readonly CarriedState[]): Promise<Progress> {
    const path = this.file("checkpoint.safetensors");
    const checkpoint = await openCheckpoint(path);
    try {
      const read = async (name: string, shape: readonly number[], values: Float32Array) => {
        const tensor = checkpoint.tensors.get(name);
        if (tensor?.dtype !== "f32" || tensor.shape.join() !== shape.join()) {
          const found = tensor ? `[${tensor.shape.join(", ")}] of ${tensor.dtype}` : "none";
          throw new TrainingError(
            `${path}: expected ${name} [${shape.join(", ")}], found ${found}: it is the checkpoint of another model`,
          );
        }
        await readTensorInto(tensor, "f32", new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      };
      // All shapes are checked before anything is written.
      const wanted = parameters.flatMap((p) => [
        [`weight/${p.name}`, p.shape, () => p.values] as const,
        [`first/${p.name}`, p.shape, () => p.firstMoment] as const,
        [`second/${p.name}`, p.shape, () => p.secondMoment] as const,
      ]);
      for (const [name, shape, values] of wanted) await read(name, shape, values());
      for (const { name, values } of states) await read(`state/${name}`, [values.length], values);
      const progress = checkpoint.tensors.get("progress");
      if (progress?.dtype !== "u8") throw new TrainingError(`${path}: expected a tensor progress, found none`);
      const bytes = new Uint8Array(progress.shape[0] as number);
      await progress.source.readInto(progress.offset, bytes);
      return JSON.parse(new TextDecoder().decode(bytes)) as Progress;
    } finally {
      await checkpoint.close();
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
