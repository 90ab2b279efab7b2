// What a run keeps in its folder: the model, all that resuming needs, the log and its curve. The first rank alone has the folder.

import type { Parameter } from "../backends/training.js";
import { CheckpointError, TrainingError } from "../errors.js";
import { encodeState } from "../generation/state-file.js";
import { PlotLibrariesError } from "../plots/svg-plot.js";
import { lossCurve } from "./loss-curve.js";
import type { ModelSetup } from "./model-setup.js";
import type { TrainOptions } from "./options.js";
import type { Recipe } from "./recipe.js";
import type { CarriedState, LogEntry, Progress, RunFolder } from "./run-folder.js";

/** What is kept, and where. */
export interface RunSavesParts {
  readonly options: TrainOptions;
  readonly recipe: Recipe;
  /** Undefined on ranks that write nothing. */
  readonly folder: RunFolder | undefined;
  readonly setup: ModelSetup;
}

/** A run as it is saved. */
export interface SavedRun {
  readonly parameters: readonly Parameter[];
  /** The states of all rows that are carried from step to step. */
  readonly states: readonly CarriedState[];
  readonly progress: Progress;
  /** The state that sequences begin with, where it is learned. */
  readonly initialState: Float32Array | undefined;
}

/** Writes to the folder of a run. On ranks without one it only remembers. */
export class RunSaves {
  readonly #parts: RunSavesParts;
  #log: LogEntry[] = [];
  #savedStep = 0;
  #saidThatNothingIsDrawn = false;

  constructor(parts: RunSavesParts) {
    this.#parts = parts;
  }

  /** The step of what was saved last. */
  get savedStep(): number {
    return this.#savedStep;
  }

  /** What the log says last of something that is a number. @param step of which it must be; any by default */
  lastInLog(name: string, step?: number): number | undefined {
    const says = (entry: LogEntry) => typeof entry[name] === "number" && (step === undefined || entry.step === step);
    return this.#log.findLast(says)?.[name] as number | undefined;
  }

  /** Reads weights, moments and states of a run that was saved before, and its log. */
  async load({ step }: Progress, parameters: readonly Parameter[], states: readonly CarriedState[]): Promise<void> {
    const { folder } = this.#parts;
    this.#savedStep = step;
    await folder?.loadCheckpoint(parameters, states);
    this.#log = (await folder?.readLog(step)) ?? [];
  }

  /** Adds a line to the log. @throws TrainingError when the disk is full */
  async log(entry: LogEntry): Promise<void> {
    this.#log.push(entry);
    await this.#explained(async () => this.#parts.folder?.log(entry));
  }

  /** Saves all of a run. @throws TrainingError when the disk is full */
  async save(run: SavedRun): Promise<void> {
    const { folder } = this.#parts;
    if (folder) await this.#explained(() => this.#write(folder, run));
    this.#savedStep = run.progress.step;
  }

  /** Writes to the folder. @throws TrainingError when the disk is full, with what is there to resume */
  async #explained(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      if (!(cause instanceof CheckpointError)) throw cause;
      const { folder, options } = this.#parts;
      const saved = folder?.saved
        ? `what was saved at step ${this.#savedStep} is still in ${options.out}: free some space, then resume (--resume)`
        : "nothing was saved yet";
      throw new TrainingError(`${cause.message}; ${saved}`, { cause });
    }
  }

  async #write(folder: RunFolder, { parameters, states, progress, initialState }: SavedRun): Promise<void> {
    const { setup, recipe, options } = this.#parts;
    const { state, metadata } = setup;
    await folder.saveModel(setup.weights(parameters, recipe.dtype, options.onNotice), metadata);
    const adapter = setup.adapter?.(parameters, recipe.dtype);
    if (adapter) await folder.saveAdapter(adapter.tensors, adapter.metadata);
    if (state && initialState) {
      const saved = { values: initialState, lastToken: undefined, logits: undefined, position: 0 };
      await folder.writeState(encodeState(saved, state.fingerprint));
    }
    await folder.saveCheckpoint(parameters, states, progress);
    if (this.#log.length > 0) await this.#drawCurve(folder);
  }

  /** Draws the curve of the log. Where the libraries that draw are not installed there is none, which is said once. */
  async #drawCurve(folder: RunFolder): Promise<void> {
    let curve: string;
    try {
      curve = await lossCurve(this.#log);
    } catch (error) {
      if (!(error instanceof PlotLibrariesError)) throw error;
      if (!this.#saidThatNothingIsDrawn) this.#parts.options.onNotice?.(`no loss.svg is drawn: ${error.message}`);
      this.#saidThatNothingIsDrawn = true;
      return;
    }
    await folder.writeCurve(curve);
  }
}
