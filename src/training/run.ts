// The steps of a training run, from where it was saved last to its end: it is measured and saved at intervals, so that a killed run
// can be resumed and ends with the same bits. Where several ranks share it, each computes its rows of every batch.

import type { ResidentState } from "../backends/backend.js";
import type {
  OptimizerSettings,
  Parameter,
  SharedStep,
  TrainingRuntime,
  TrainingSegment,
} from "../backends/training.js";
import { crc32 } from "../checksum.js";
import { CheckpointError, TrainingError } from "../errors.js";
import { encodeState } from "../generation/state-file.js";
import { PlotLibrariesError } from "../plots/svg-plot.js";
import type { Batches, Window } from "./batches.js";
import type { Dataset } from "./dataset.js";
import { measureTexts } from "./evaluation.js";
import { lossCurve } from "./loss-curve.js";
import type { ModelSetup } from "./model-setup.js";
import type { StepProgress, TrainOptions, TrainResult } from "./options.js";
import { agreed, foundByAll, ofAnyRank, type Ranks, shared } from "./ranks.js";
import type { Recipe } from "./recipe.js";
import type { RowShare } from "./row-share.js";
import type { CarriedState, LogEntry, Progress, RunFolder } from "./run-folder.js";
import { learningRateAt, lengthOf } from "./schedule.js";

/** Tokens of each held-out text that are measured during a run; all of it is measured at its end. */
const quickTokens = 512;

/** All that a run is made of, as one of its ranks has it. */
export interface RunParts {
  readonly options: TrainOptions;
  readonly recipe: Recipe;
  readonly ranks: Ranks;
  /** The rows of each batch that are this rank's. */
  readonly share: RowShare;
  /** The first rank's alone, which writes it. */
  readonly folder: RunFolder | undefined;
  readonly data: Dataset & { readonly checksum: number };
  readonly batches: Batches;
  readonly setup: ModelSetup;
  readonly runtime: TrainingRuntime;
}

/** A row of the batch: the state of its sequence, and memory for the next state. */
interface Row {
  state: ResidentState;
  next: ResidentState;
}

export class Run {
  readonly #options: TrainOptions;
  readonly #recipe: Recipe;
  readonly #ranks: Ranks;
  readonly #share: RowShare;
  readonly #folder: RunFolder | undefined;
  readonly #data: RunParts["data"];
  readonly #setup: ModelSetup;
  readonly #runtime: TrainingRuntime;
  readonly #batches: Batches;
  readonly #steps: number;
  readonly #warmup: number;
  readonly #emptyState: Float32Array;
  /** The state that sequences begin with. */
  readonly #initial: ResidentState;
  /** This rank's. */
  readonly #rows: readonly Row[];
  #log: LogEntry[] = [];
  /** The loss of the last step that had one, in nats per token. */
  #lastLoss = 0;
  #step = 0;
  #savedStep = 0;
  #saidThatNothingIsDrawn = false;
  /** Seconds that the run took before it was resumed. */
  #seconds = 0;
  readonly #started = performance.now();

  constructor({ options, recipe, ranks, share, folder, data, batches, setup, runtime }: RunParts) {
    this.#options = options;
    this.#recipe = recipe;
    this.#ranks = ranks;
    this.#share = share;
    this.#folder = folder;
    this.#data = data;
    this.#batches = batches;
    this.#setup = setup;
    this.#runtime = runtime;
    const { steps, warmup } = lengthOf(recipe, batches.stepsPerEpoch);
    this.#steps = steps;
    this.#warmup = warmup;
    this.#initial = runtime.createState();
    this.#emptyState = this.#initial.values.slice();
    this.#rows = Array.from({ length: share.end - share.begin }, () => {
      return { state: runtime.createState(), next: runtime.createState() };
    });
  }

  /** @param progress of the run when it was saved last; undefined for one that begins */
  async run(progress: Progress | undefined): Promise<TrainResult> {
    const { signal, onStep, saveEvery = 100, validateEvery = 100 } = this.#options;
    const { rank } = this.#ranks;
    if (progress) {
      this.#step = progress.step;
      this.#savedStep = progress.step;
      this.#seconds = progress.seconds;
    }
    await this.#load(progress);
    if (!progress) await this.#save(); // so that there is something to resume from the first moment
    while (this.#step < this.#steps && !(await ofAnyRank(this.#ranks, signal?.aborted === true))) {
      const [entry, progressOfStep] = await this.#trainStep(validateEvery);
      await agreed(this.#ranks, async () => {
        await this.#keep(entry);
        if (rank === 0) await onStep?.(progressOfStep);
      });
      if (this.#step % saveEvery === 0 && this.#step < this.#steps) await this.#save();
    }
    const finished = this.#step >= this.#steps;
    const final = finished ? await this.#validateAll() : undefined;
    if (progress || this.#step > this.#savedStep) await this.#save();
    const loss = this.#lossInLog();
    return shared(this.#ranks, {
      folder: this.#options.out,
      finished,
      saved: true,
      step: this.#step,
      steps: this.#steps,
      ...(loss !== undefined && { loss }),
      ...(final !== undefined && { validationBitsPerByte: final }),
      seconds: this.#elapsed(),
    });
  }

  /** Brings weights, and of a run that was saved before all that it goes on with, to every rank. */
  async #load(progress: Progress | undefined): Promise<void> {
    const { parameters } = this.#runtime;
    const states = this.#carried();
    if (progress) {
      await agreed(this.#ranks, async () => {
        await this.#folder?.loadCheckpoint(parameters, states);
        this.#log = (await this.#folder?.readLog(progress.step)) ?? [];
      });
      this.#lastLoss = await shared(this.#ranks, this.#lossInLog() ?? 0);
    }
    for (const parameter of parameters) {
      const { values, firstMoment, secondMoment } = parameter;
      for (const one of progress ? [values, firstMoment, secondMoment] : [values]) {
        await this.#ranks.broadcast(bytesOf(one), 0);
      }
    }
    for (const { values } of progress ? states : []) await this.#ranks.broadcast(bytesOf(values), 0);
  }

  #lossInLog(): number | undefined {
    return this.#log.findLast((entry) => typeof entry["loss"] === "number")?.["loss"] as number | undefined;
  }

  /** Bits per byte of all held-out text, which a run that was resumed after its end may have in its log. */
  async #validateAll(): Promise<number | undefined> {
    const name = "validation_bits_per_byte_of_all";
    const logged = this.#log.findLast((entry) => entry.step === this.#step && typeof entry[name] === "number");
    const known = await shared(this.#ranks, (logged?.[name] as number | undefined) ?? null);
    if (known !== null) return known;
    const measured = await this.#validate(Number.POSITIVE_INFINITY);
    if (measured !== undefined) await agreed(this.#ranks, () => this.#keep({ step: this.#step, [name]: measured }));
    return measured;
  }

  async #keep(entry: LogEntry): Promise<void> {
    this.#log.push(entry);
    await this.#explained(async () => this.#folder?.log(entry));
  }

  async #trainStep(validateEvery: number): Promise<[entry: LogEntry, progressOfStep: StepProgress]> {
    const { context, seed } = this.#recipe;
    const started = performance.now();
    const learningRate = learningRateAt(this.#step, { ...this.#recipe, steps: this.#steps, warmup: this.#warmup });
    if (this.#setup.state) this.#begin(this.#initial); // what is learned has changed
    const windows = this.#batches.at(this.#step);
    const targetCount = windows.reduce((sum, { targets }) => sum + targetsIn(targets), 0);
    const segments = this.#segments(windows);
    const settings: OptimizerSettings = {
      ...this.#recipe,
      step: this.#step + 1,
      learningRate,
      epsilon: this.#setup.adamEpsilon,
    };
    const dropoutSeed = (Math.imul(seed, 0x9e3779b1) + this.#step) >>> 0;
    // A step in which nobody answers learns nothing; its tokens are read for the steps behind it.
    const { losses, gradientNorm } =
      targetCount > 0
        ? await this.#runtime.step(segments, settings, dropoutSeed, this.#sharedStep(targetCount))
        : { losses: await this.#runtime.evaluate(segments), gradientNorm: 0 };
    const [lossSum = 0] = await this.#ranks.sumNumbers([losses.reduce((sum, one) => sum + one, 0)]);
    const loss = targetCount > 0 ? lossSum / targetCount : this.#lastLoss;
    this.#lastLoss = loss;
    this.#checkFinite(loss, gradientNorm);
    for (const row of this.#rows) [row.state, row.next] = [row.next, row.state];
    this.#step++;
    const tokensPerSecond = (windows.length * context * 1000) / (performance.now() - started);
    const measure = this.#step % validateEvery === 0 && this.#step < this.#steps;
    const validation = measure ? await this.#validate(quickTokens) : undefined;
    const elapsed = this.#elapsed();
    const progress = {
      step: this.#step,
      loss,
      bitsPerByte: loss / Math.LN2 / this.#data.bytesPerToken,
      learningRate,
      gradientNorm,
      tokensPerSecond,
    };
    const progressOfStep = {
      ...progress,
      steps: this.#steps,
      secondsLeft: ((this.#steps - this.#step) * windows.length * context) / tokensPerSecond,
      ...(validation !== undefined && { validationBitsPerByte: validation }),
    };
    const entry = {
      step: progress.step,
      loss,
      bits_per_byte: progress.bitsPerByte,
      learning_rate: learningRate,
      gradient_norm: gradientNorm,
      tokens_per_second: Math.round(tokensPerSecond),
      seconds: Math.round(elapsed * 10) / 10,
      ...(validation !== undefined && { validation_bits_per_byte: validation }),
    };
    return [entry, progressOfStep];
  }

  /** What this rank computes of a batch. */
  #segments(windows: readonly Window[]): TrainingSegment[] {
    const { carryState } = this.#recipe;
    return windows.slice(this.#share.begin, this.#share.end).map((window, i) => {
      const row = this.#rows[i] as Row;
      return {
        state: carryState && window.continues ? row.state : this.#initial,
        nextState: row.next,
        tokens: window.tokens,
        targets: window.targets,
      };
    });
  }

  /** Undefined where there is one rank. */
  #sharedStep(targetCount: number): SharedStep | undefined {
    if (this.#ranks.size === 1) return undefined;
    const firstRow = this.#share.begin * this.#recipe.context;
    return { targetCount, firstRow, sum: (gradients) => this.#ranks.sum(gradients) };
  }

  /** Undefined where nothing is held out, or the signal ended it. Each rank measures some of the texts. */
  async #validate(limit: number): Promise<number | undefined> {
    if (this.#data.heldOut.length === 0) return undefined;
    const { context } = this.#recipe;
    const { signal } = this.#options;
    const begin = (state: ResidentState) => this.#begin(state);
    const { rank, size } = this.#ranks;
    const own = this.#data.heldOut.filter((_, i) => i % size === rank);
    const batch = this.#rows.length;
    const measured = await measureTexts(this.#runtime, own, { batch, context, limit, begin, signal });
    const { nats = 0, bytes = 0 } = measured ?? {};
    const [allNats = 0, allBytes = 0, unfinished = 0] = await this.#ranks.sumNumbers([nats, bytes, measured ? 0 : 1]);
    return unfinished > 0 ? undefined : allNats / Math.LN2 / allBytes;
  }

  /** Writes the state that sequences begin with. */
  #begin(state: { readonly values: Float32Array }): void {
    state.values.set(this.#emptyState);
    this.#setup.state?.write(state.values, (name) => this.#parameter(name).values);
  }

  #parameter(name: string): Parameter {
    return this.#runtime.parameters.find((parameter) => parameter.name === name) as Parameter;
  }

  /** All ranks find the same. @throws TrainingError that names the tensor and the last good checkpoint */
  #checkFinite(loss: number, gradientNorm: number): void {
    const limit = 3 * Math.log(this.#setup.size.vocabulary);
    if (Number.isFinite(loss) && Number.isFinite(gradientNorm) && loss < limit) return;
    const broken = this.#runtime.parameters.find(({ gradient }) => !gradient.every(Number.isFinite));
    const what = broken
      ? `the gradient of ${broken.name} is not finite`
      : `the loss is ${loss.toPrecision(4)} nats per token; guessing gives ${(limit / 3).toPrecision(4)}`;
    const error = new TrainingError(
      `step ${this.#step + 1}: ${what}; the last good checkpoint, of step ${this.#savedStep}, is in ${this.#options.out}: ` +
        "start again with a lower learning rate (--lr) or more warm-up, or check the data of this step",
    );
    throw foundByAll(this.#ranks, error);
  }

  async #save(): Promise<void> {
    const { rank, size } = this.#ranks;
    if (size > 1) await this.#checkThatRanksAgree();
    const states = this.#carried();
    for (const [row, { values }] of states.entries()) {
      await this.#ranks.broadcast(bytesOf(values), this.#share.ownerOf(row));
    }
    await agreed(this.#ranks, async () => {
      if (this.#folder) await this.#explained(() => this.#writeFiles(this.#folder as RunFolder, states));
      this.#savedStep = this.#step;
      if (rank === 0) await this.#options.onSave?.({ step: this.#step, folder: this.#options.out });
    });
  }

  /** @throws TrainingError where ranks have come to different weights, which a save of one would hide */
  async #checkThatRanksAgree(): Promise<void> {
    const own = this.#runtime.parameters.reduce((crc, { values }) => crc32(bytesOf(values), crc), 0);
    const first = await shared(this.#ranks, own);
    await agreed(this.#ranks, () => {
      if (own === first) return;
      throw new TrainingError(
        `step ${this.#step}: expected the weights that rank 0 has, found others on rank ${this.#ranks.rank}: all ranks must compute ` +
          "alike; on processors of different kinds, set RWKV_INSTRUCTIONS to what all have, such as avx2",
      );
    });
  }

  /** Writes to the folder. @throws TrainingError when the disk is full, with what is there to resume */
  async #explained(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      if (!(cause instanceof CheckpointError)) throw cause;
      const saved = this.#folder?.saved
        ? `what was saved at step ${this.#savedStep} is still in ${this.#options.out}: free some space, then resume (--resume)`
        : "nothing was saved yet";
      throw new TrainingError(`${cause.message}; ${saved}`, { cause });
    }
  }

  async #writeFiles(folder: RunFolder, states: readonly CarriedState[]): Promise<void> {
    const { parameters } = this.#runtime;
    const { state, metadata } = this.#setup;
    const weights = this.#setup.weights(parameters, this.#recipe.dtype, this.#options.onNotice);
    await folder.saveModel(weights, metadata);
    const adapter = this.#setup.adapter?.(parameters, this.#recipe.dtype);
    if (adapter) await folder.saveAdapter(adapter.tensors, adapter.metadata);
    if (state) {
      const values = new Float32Array(this.#emptyState.length);
      this.#begin({ values });
      const saved = { values, lastToken: undefined, logits: undefined, position: 0 };
      await folder.writeState(encodeState(saved, state.fingerprint));
    }
    const progress = { step: this.#step, seconds: this.#elapsed(), data: this.#data.checksum };
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
      if (!this.#saidThatNothingIsDrawn) this.#options.onNotice?.(`no loss.svg is drawn: ${error.message}`);
      this.#saidThatNothingIsDrawn = true;
      return;
    }
    await folder.writeCurve(curve);
  }

  /** The states of all rows that are carried from step to step; of rows of other ranks, memory for them. */
  #carried(): CarriedState[] {
    const { carryState, batch } = this.#recipe;
    if (!carryState) return [];
    return Array.from({ length: batch }, (_, row) => {
      const own = this.#rows[row - this.#share.begin];
      return { name: String(row), values: own?.state.values ?? new Float32Array(this.#emptyState.length) };
    });
  }

  #elapsed(): number {
    return this.#seconds + (performance.now() - this.#started) / 1000;
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function targetsIn(targets: Window["targets"]): number {
  let count = 0;
  for (const target of targets) if (target >= 0) count++;
  return count;
}
