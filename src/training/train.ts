// A training run: turns data into tokens, sets up a model, and runs steps until it is done or stopped. It is saved at intervals,
// so that a killed run can be resumed and ends with the same bits.

import { defaultThreads } from "#platform/backends";
import type { ResidentState } from "../backends/backend.js";
import type { OptimizerSettings, Parameter, TrainingRuntime, TrainingSegment } from "../backends/training.js";
import { crc32 } from "../checksum.js";
import { CheckpointError, OptionError, TrainingError } from "../errors.js";
import { encodeState } from "../generation/state-file.js";
import { InterruptedError } from "../interruptible.js";
import { PlotLibrariesError } from "../plots/svg-plot.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { checkBase, openBase } from "./base-model.js";
import { type Batches, consecutiveBatches, shuffledBatches } from "./batches.js";
import { type BinidxFiles, binidxAt, readBinidx, tokenizedDataset } from "./binidx.js";
import { checkedOptions } from "./checked-options.js";
import { type Dataset, datasetOf, type LearnedTokens } from "./dataset.js";
import { holdOut, type SplitDocuments } from "./document.js";
import { readDocuments } from "./documents.js";
import { bitsPerByte } from "./evaluation.js";
import { loraOf } from "./lora-options.js";
import { lossCurve } from "./loss-curve.js";
import { type ModelSetup, setUpModel } from "./model-setup.js";
import { openTrainingOn } from "./open-training.js";
import type { StepProgress, TrainOptions, TrainResult } from "./options.js";
import { type Recipe, recipeOf } from "./recipe.js";
import { extended, resumedRecipe, sizeOptions } from "./resumption.js";
import { type LogEntry, type Progress, RunFolder } from "./run-folder.js";
import { checkTokenizer, newTokenizer, tokenizerOfRun } from "./run-tokenizer.js";
import { learningRateAt, lengthOf } from "./schedule.js";

/** Tokens of each held-out text that are measured during a run; all of it is measured at its end. */
const quickTokens = 512;

/**
 * Trains a model on text and leaves it in a folder. The options are copied when the function is called.
 *
 * @throws TrainingError when the data cannot be used, a run cannot be resumed, another call trains in the folder, or the loss is
 *   no longer a number; OptionError, CheckpointError, TokenizerError, BackendError
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const given = checkedOptions(options);
  const fresh = given.resume ? undefined : recipeOf(given);
  const folder = await (fresh ? RunFolder.create(given.out) : RunFolder.resume(given.out));
  let progress: Progress | undefined;
  try {
    const recipe = fresh ?? resumedRecipe(await folder.readRecipe(), given, folder.path);
    progress = await folder.readProgress();
    return await trainIn(folder, given, recipe, progress);
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    const { step = 0, seconds = 0 } = progress ?? {};
    return { folder: folder.path, finished: false, saved: folder.saved, step, seconds };
  } finally {
    await folder.close();
  }
}

/** @param progress of a run that was saved before */
async function trainIn(
  folder: RunFolder,
  given: TrainOptions,
  wanted: Recipe,
  progress: Progress | undefined,
): Promise<TrainResult> {
  const { signal, onNotice = () => {} } = given;
  const recipe = await withBase(wanted, folder, given);
  const source = await openData(given, recipe);
  if (!progress) await folder.begin(recipe);
  const documents = "split" in source ? source.split.training : [];
  const tokenizer = progress
    ? await tokenizerOfRun(recipe, folder)
    : await newTokenizer(recipe, folder, documents, { signal, onNotice });
  if (given.resume && given.tokenizer !== undefined) await checkTokenizer(given.tokenizer, recipe, folder);
  const data =
    "split" in source
      ? await datasetOf(source.split, tokenizer, recipe.context, signal)
      : await tokensOf(source.files, tokenizer.tokenizer, recipe, signal);
  const checksum = checksumOf(data);
  if (progress && progress.data !== checksum) {
    throw new TrainingError(
      `${given.data}: expected the data that the run in ${folder.path} was started with, found other text`,
    );
  }
  onNotice(
    `${data.tokens.length} tokens to learn from, ${data.bytesPerToken.toFixed(2)} bytes each; ` +
      `${data.heldOut.reduce((sum, text) => sum + text.tokens.length, 0)} held out`,
  );
  const { batch, context, seed } = recipe;
  const batches = recipe.carryState
    ? consecutiveBatches(data, batch, context)
    : shuffledBatches(data, batch, context, seed);
  const final = given.resume ? extended(recipe, given, batches.stepsPerEpoch, progress?.step ?? 0) : recipe;
  const setup = await setUpModel(final, tokenizer.tokenizer, { signal });
  let runtime: TrainingRuntime | undefined;
  try {
    runtime = await openTrainingOn(given.backend, setup.model, {
      threads: given.threads ?? defaultThreads(),
      maxTokens: batch * context,
      maxSegments: batch,
      onNotice,
    });
    if (given.resume) await folder.writeRecipe(final);
    return await new Run(given, final, folder, { ...data, checksum }, batches, setup, runtime).run(progress);
  } finally {
    await runtime?.dispose();
    await setup.close();
  }
}

/** Documents, or the files of a binidx. @throws TrainingError */
async function openData(
  { data, signal, onNotice = () => {} }: TrainOptions,
  { tokenizer, from, validation }: Recipe,
): Promise<{ readonly split: SplitDocuments } | { readonly files: BinidxFiles }> {
  const files = await binidxAt(data);
  if (!files) return { split: holdOut(await readDocuments(data, { signal, onNotice }), validation) };
  if (tokenizer !== null || from !== null) return { files };
  throw new TrainingError(
    `${data}: holds tokens, not text: name the tokenizer that they were made with (--tokenizer), or a model (--from)`,
  );
}

async function tokensOf(
  files: BinidxFiles,
  tokenizer: Tokenizer,
  { validation, context }: Recipe,
  signal: AbortSignal | undefined,
): Promise<Dataset> {
  const tokens = await readBinidx(files, tokenizer.vocabularySize, signal);
  return tokenizedDataset(tokens, tokenizer, validation, context);
}

/**
 * The recipe with what the base model tells, where there is one: which it is, its version and sizes, and which matrices low-rank
 * adaptation adds to.
 *
 * @throws OptionError for a version or size that was given and is not the base model's
 */
async function withBase(recipe: Recipe, folder: RunFolder, given: TrainOptions): Promise<Recipe> {
  const { from, baseFingerprint: recorded, lora } = recipe;
  if (from === null) return recipe;
  const base = await (given.resume ? checkBase(from, recorded, folder.path) : openBase(from));
  const { definition, fingerprint, size } = base;
  const { layers, width, hidden, vocabulary } = size;
  const own = { version: definition.version, layers, width, hidden, vocabulary };
  for (const name of sizeOptions) {
    const option = given[name];
    if (option !== undefined && option !== own[name]) {
      throw new OptionError(name, option, `${own[name]}, which the base model ${from} has`);
    }
  }
  return { ...recipe, ...own, baseFingerprint: fingerprint, lora: lora && loraOf(lora, definition) };
}

/** Of the tokens, and of which of them are learned where not all are. */
function checksumOf({ tokens, learned }: LearnedTokens): number {
  const ofTokens = crc32(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
  return learned ? crc32(learned, ofTokens) : ofTokens;
}

/** A row of the batch: the state of its sequence, and memory for the next state. */
interface Row {
  state: ResidentState;
  next: ResidentState;
}

class Run {
  readonly #options: TrainOptions;
  readonly #recipe: Recipe;
  readonly #folder: RunFolder;
  readonly #data: Dataset & { readonly checksum: number };
  readonly #setup: ModelSetup;
  readonly #runtime: TrainingRuntime;
  readonly #batches: Batches;
  readonly #steps: number;
  readonly #warmup: number;
  readonly #emptyState: Float32Array;
  /** The state that sequences begin with. */
  readonly #initial: ResidentState;
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

  constructor(
    options: TrainOptions,
    recipe: Recipe,
    folder: RunFolder,
    data: Dataset & { readonly checksum: number },
    batches: Batches,
    setup: ModelSetup,
    runtime: TrainingRuntime,
  ) {
    this.#options = options;
    this.#recipe = recipe;
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
    this.#rows = Array.from({ length: recipe.batch }, () => {
      return { state: runtime.createState(), next: runtime.createState() };
    });
  }

  /** @param progress of the run when it was saved last; undefined for one that begins */
  async run(progress: Progress | undefined): Promise<TrainResult> {
    const { signal, onStep, saveEvery = 100, validateEvery = 100 } = this.#options;
    if (progress) {
      await this.#folder.loadCheckpoint(this.#runtime.parameters, this.#carried());
      this.#step = progress.step;
      this.#savedStep = progress.step;
      this.#seconds = progress.seconds;
      this.#log = await this.#folder.readLog(progress.step);
      this.#lastLoss = this.#lossInLog() ?? 0;
    } else await this.#save(); // so that there is something to resume from the first moment
    while (this.#step < this.#steps && !signal?.aborted) {
      const [entry, progressOfStep] = await this.#trainStep(validateEvery);
      await this.#keep(entry);
      await onStep?.(progressOfStep);
      if (this.#step % saveEvery === 0 && this.#step < this.#steps) await this.#save();
    }
    const finished = this.#step >= this.#steps;
    const final = finished ? await this.#validateAll() : undefined;
    if (progress || this.#step > this.#savedStep) await this.#save();
    const loss = this.#lossInLog();
    return {
      folder: this.#folder.path,
      finished,
      saved: true,
      step: this.#step,
      steps: this.#steps,
      ...(loss !== undefined && { loss }),
      ...(final !== undefined && { validationBitsPerByte: final }),
      seconds: this.#elapsed(),
    };
  }

  #lossInLog(): number | undefined {
    return this.#log.findLast((entry) => typeof entry["loss"] === "number")?.["loss"] as number | undefined;
  }

  /** Bits per byte of all held-out text, which a run that was resumed after its end may have in its log. */
  async #validateAll(): Promise<number | undefined> {
    const name = "validation_bits_per_byte_of_all";
    const known = this.#log.findLast((entry) => entry.step === this.#step && typeof entry[name] === "number");
    if (known) return known[name] as number;
    const measured = await this.#validate(Number.POSITIVE_INFINITY);
    if (measured !== undefined) await this.#keep({ step: this.#step, [name]: measured });
    return measured;
  }

  async #keep(entry: LogEntry): Promise<void> {
    this.#log.push(entry);
    await this.#explained(() => this.#folder.log(entry));
  }

  async #trainStep(validateEvery: number): Promise<[entry: LogEntry, progressOfStep: StepProgress]> {
    const { carryState, context, seed } = this.#recipe;
    const started = performance.now();
    const learningRate = learningRateAt(this.#step, { ...this.#recipe, steps: this.#steps, warmup: this.#warmup });
    if (this.#setup.state) this.#begin(this.#initial); // what is learned has changed
    const windows = this.#batches.at(this.#step);
    const segments = windows.map((window, i): TrainingSegment => {
      const row = this.#rows[i] as Row;
      return {
        state: carryState && window.continues ? row.state : this.#initial,
        nextState: row.next,
        tokens: window.tokens,
        targets: window.targets,
      };
    });
    const settings: OptimizerSettings = {
      ...this.#recipe,
      step: this.#step + 1,
      learningRate,
      epsilon: this.#setup.adamEpsilon,
    };
    const dropoutSeed = (Math.imul(seed, 0x9e3779b1) + this.#step) >>> 0;
    const learns = windows.some(({ targets }) => targets.some((target) => target >= 0));
    // A step in which nobody answers learns nothing; its tokens are read for the steps behind it.
    const { losses, gradientNorm } = learns
      ? await this.#runtime.step(segments, settings, dropoutSeed)
      : { losses: await this.#runtime.evaluate(segments), gradientNorm: 0 };
    const loss = losses.length > 0 ? losses.reduce((sum, one) => sum + one, 0) / losses.length : this.#lastLoss;
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

  /** Undefined where nothing is held out, or the signal ended it. */
  async #validate(limit: number): Promise<number | undefined> {
    if (this.#data.heldOut.length === 0) return undefined;
    const { batch, context } = this.#recipe;
    const { signal } = this.#options;
    const begin = (state: ResidentState) => this.#begin(state);
    return bitsPerByte(this.#runtime, this.#data.heldOut, { batch, context, limit, begin, signal });
  }

  /** Writes the state that sequences begin with. */
  #begin(state: { readonly values: Float32Array }): void {
    state.values.set(this.#emptyState);
    this.#setup.state?.write(state.values, (name) => this.#parameter(name).values);
  }

  #parameter(name: string): Parameter {
    return this.#runtime.parameters.find((parameter) => parameter.name === name) as Parameter;
  }

  /** @throws TrainingError that names the tensor and the last good checkpoint */
  #checkFinite(loss: number, gradientNorm: number): void {
    const limit = 3 * Math.log(this.#setup.size.vocabulary);
    if (Number.isFinite(loss) && Number.isFinite(gradientNorm) && loss < limit) return;
    const broken = this.#runtime.parameters.find(({ gradient }) => !gradient.every(Number.isFinite));
    const what = broken
      ? `the gradient of ${broken.name} is not finite`
      : `the loss is ${loss.toPrecision(4)} nats per token; guessing gives ${(limit / 3).toPrecision(4)}`;
    throw new TrainingError(
      `step ${this.#step + 1}: ${what}; the last good checkpoint, of step ${this.#savedStep}, is in ${this.#folder.path}: ` +
        "start again with a lower learning rate (--lr) or more warm-up, or check the data of this step",
    );
  }

  async #save(): Promise<void> {
    await this.#explained(() => this.#writeFiles());
    await this.#options.onSave?.({ step: this.#step, folder: this.#folder.path });
  }

  /** Writes to the folder. @throws TrainingError when the disk is full, with what is there to resume */
  async #explained(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      if (!(cause instanceof CheckpointError)) throw cause;
      const saved = this.#folder.saved
        ? `what was saved at step ${this.#savedStep} is still in ${this.#folder.path}: free some space, then resume (--resume)`
        : "nothing was saved yet";
      throw new TrainingError(`${cause.message}; ${saved}`, { cause });
    }
  }

  async #writeFiles(): Promise<void> {
    const { parameters } = this.#runtime;
    const { state, metadata } = this.#setup;
    const weights = this.#setup.weights(parameters, this.#recipe.dtype, this.#options.onNotice);
    await this.#folder.saveModel(weights, metadata);
    const adapter = this.#setup.adapter?.(parameters, this.#recipe.dtype);
    if (adapter) await this.#folder.saveAdapter(adapter.tensors, adapter.metadata);
    if (state) {
      const values = new Float32Array(this.#emptyState.length);
      this.#begin({ values });
      const saved = { values, lastToken: undefined, logits: undefined, position: 0 };
      await this.#folder.writeState(encodeState(saved, state.fingerprint));
    }
    const progress = { step: this.#step, seconds: this.#elapsed(), data: this.#data.checksum };
    await this.#folder.saveCheckpoint(parameters, this.#carried(), progress);
    this.#savedStep = this.#step;
    if (this.#log.length > 0) await this.#drawCurve();
  }

  /** Draws the curve of the log. Where the libraries that draw are not installed there is none, which is said once. */
  async #drawCurve(): Promise<void> {
    let curve: string;
    try {
      curve = await lossCurve(this.#log);
    } catch (error) {
      if (!(error instanceof PlotLibrariesError)) throw error;
      if (!this.#saidThatNothingIsDrawn) this.#options.onNotice?.(`no loss.svg is drawn: ${error.message}`);
      this.#saidThatNothingIsDrawn = true;
      return;
    }
    await this.#folder.writeCurve(curve);
  }

  #carried() {
    if (!this.#recipe.carryState) return [];
    return this.#rows.map(({ state }, i) => ({ name: String(i), values: state.values }));
  }

  #elapsed(): number {
    return this.#seconds + (performance.now() - this.#started) / 1000;
  }
}
