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
import { TrainingError } from "../errors.js";
import type { Window } from "./batches.js";
import { measureTexts } from "./evaluation.js";
import type { ModelSetup } from "./model-setup.js";
import type { StepProgress, TrainOptions, TrainResult } from "./options.js";
import { agreed, foundByAll, ofAnyRank, type Ranks, shared } from "./ranks.js";
import type { Recipe } from "./recipe.js";
import type { RowShare } from "./row-share.js";
import type { CarriedState, LogEntry, Progress, RunFolder } from "./run-folder.js";
import { RunSaves } from "./run-saves.js";
import { learningRateAt, lengthOf } from "./schedule.js";
import type { RankData } from "./shared-data.js";

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
  readonly data: RankData;
  /** CRC-32 of the training tokens. */
  readonly checksum: number;
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
  readonly #saves: RunSaves;
  readonly #data: RankData;
  readonly #checksum: number;
  readonly #setup: ModelSetup;
  readonly #runtime: TrainingRuntime;
  readonly #steps: number;
  readonly #warmup: number;
  readonly #emptyState: Float32Array;
  /** The state that sequences begin with. */
  readonly #initial: ResidentState;
  /** This rank's. */
  readonly #rows: readonly Row[];
  /** The loss of the last step that had one, in nats per token. */
  #lastLoss = 0;
  #step = 0;
  /** Seconds that the run took before it was resumed. */
  #seconds = 0;
  readonly #started = performance.now();

  constructor({ options, recipe, ranks, share, folder, data, checksum, setup, runtime }: RunParts) {
    this.#options = options;
    this.#recipe = recipe;
    this.#ranks = ranks;
    this.#share = share;
    this.#saves = new RunSaves({ options, recipe, folder, setup });
    this.#data = data;
    this.#checksum = checksum;
    this.#setup = setup;
    this.#runtime = runtime;
    const { steps, warmup } = lengthOf(recipe, data.stepsPerEpoch);
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
      this.#seconds = progress.seconds;
    }
    await this.#load(progress);
    if (!progress) await this.#save(); // so that there is something to resume from the first moment
    while (this.#step < this.#steps && !(await ofAnyRank(this.#ranks, signal?.aborted === true))) {
      const [entry, progressOfStep] = await this.#trainStep(validateEvery);
      await agreed(this.#ranks, async () => {
        await this.#saves.log(entry);
        if (rank === 0) await onStep?.(progressOfStep);
      });
      if (this.#step % saveEvery === 0 && this.#step < this.#steps) await this.#save();
    }
    const finished = this.#step >= this.#steps;
    const final = finished ? await this.#validateAll() : undefined;
    if (progress || this.#step > this.#saves.savedStep) await this.#save();
    const loss = this.#saves.lastInLog("loss");
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
      await agreed(this.#ranks, () => this.#saves.load(progress, parameters, states));
      this.#lastLoss = await shared(this.#ranks, this.#saves.lastInLog("loss") ?? 0);
    }
    for (const parameter of parameters) {
      const { values, firstMoment, secondMoment } = parameter;
      for (const one of progress ? [values, firstMoment, secondMoment] : [values]) {
        await this.#ranks.broadcast(bytesOf(one), 0);
      }
    }
    for (const { values } of progress ? states : []) await this.#ranks.broadcast(bytesOf(values), 0);
  }

  /** Bits per byte of all held-out text, which a run that was resumed after its end may have in its log. */
  async #validateAll(): Promise<number | undefined> {
    const name = "validation_bits_per_byte_of_all";
    const known = await shared(this.#ranks, this.#saves.lastInLog(name, this.#step) ?? null);
    if (known !== null) return known;
    const measured = await this.#validate(Number.POSITIVE_INFINITY);
    if (measured !== undefined)
      await agreed(this.#ranks, () => this.#saves.log({ step: this.#step, [name]: measured }));
    return measured;
  }

  async #trainStep(validateEvery: number): Promise<[entry: LogEntry, progressOfStep: StepProgress]> {
    const { batch, context, seed } = this.#recipe;
    const started = performance.now();
    const learningRate = learningRateAt(this.#step, { ...this.#recipe, steps: this.#steps, warmup: this.#warmup });
    if (this.#setup.state) this.#begin(this.#initial); // what is learned has changed
    const { windows, targetCount } = await this.#data.at(this.#step);
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
    const tokensPerSecond = (batch * context * 1000) / (performance.now() - started);
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
      secondsLeft: ((this.#steps - this.#step) * batch * context) / tokensPerSecond,
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

  /** What this rank computes. @param windows its rows of the batch */
  #segments(windows: readonly Window[]): TrainingSegment[] {
    const { carryState } = this.#recipe;
    return windows.map((window, i) => {
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
    if (this.#data.heldOutCount === 0) return undefined;
    const { context } = this.#recipe;
    const { signal } = this.#options;
    const begin = (state: ResidentState) => this.#begin(state);
    const batch = this.#rows.length;
    const measured = await measureTexts(this.#runtime, this.#data.heldOut, { batch, context, limit, begin, signal });
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
      `step ${this.#step + 1}: ${what}; the last good checkpoint, of step ${this.#saves.savedStep}, is in ${this.#options.out}: ` +
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
    const { parameters } = this.#runtime;
    const progress = { step: this.#step, seconds: this.#elapsed(), data: this.#checksum };
    await agreed(this.#ranks, async () => {
      await this.#saves.save({ parameters, states, progress, initialState: this.#learnedState() });
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

  /** The state that sequences begin with, where it is learned. */
  #learnedState(): Float32Array | undefined {
    if (!this.#setup.state) return undefined;
    const values = new Float32Array(this.#emptyState.length);
    this.#begin({ values });
    return values;
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
