// The training loop: data, model and folder brought together, step by step, so that a run can be stopped at any moment and go on
// to the bit.

import { defaultThreads } from "#platform/backends";
import type { ResidentState } from "../backends/backend.js";
import type { OptimizerSettings, Parameter, TrainingRuntime, TrainingSegment } from "../backends/training.js";
import { crc32 } from "../checksum.js";
import { CheckpointError, OptionError, TrainingError } from "../errors.js";
import { encodeState } from "../generation/state-file.js";
import { stateLayout } from "../graph/state-layout.js";
import { type Batches, consecutiveBatches, shuffledBatches } from "./batches.js";
import {
  checkpointTokenizer,
  type Dataset,
  datasetOf,
  existingTokenizer,
  type TrainingTokenizer,
  trainedTokenizer,
  trainTokenizer,
} from "./dataset.js";
import { holdOut, readDocuments } from "./documents.js";
import { bitsPerByte } from "./evaluation.js";
import { lossCurve } from "./loss-curve.js";
import { type ModelSetup, setUpModel } from "./model-setup.js";
import { openTrainingOn } from "./open-training.js";
import { type Recipe, recipeOf, type TrainOptions, type TrainResult } from "./options.js";
import { type LogEntry, RunFolder } from "./run-folder.js";
import { learningRateAt } from "./schedule.js";

/** Tokens of each held-out text that are measured during a run; all of it is measured at its end. */
const quickTokens = 512;

/**
 * Trains a model on text, and leaves it in a folder.
 *
 * @throws TrainingError when the data cannot be used, a run cannot go on, or the loss is no longer a number; OptionError,
 *   CheckpointError, TokenizerError, BackendError
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const folder = new RunFolder(options.out);
  const recipe = options.resume ? await resumedRecipe(folder, options) : recipeOf(options);
  const { onNotice = () => {} } = options;
  const split = holdOut(await readDocuments(options.data, options), recipe.validation);
  if (!options.resume) await folder.create();
  const documents = options.resume ? undefined : split.training;
  const tokenizer = await tokenizerOf(recipe, folder, documents, options);
  const data = await datasetOf(split, tokenizer, recipe.context, options.signal);
  onNotice(
    `${data.tokens.length} tokens to learn from, ${data.bytesPerToken.toFixed(2)} bytes each; ` +
      `${data.heldOut.reduce((sum, text) => sum + text.tokens.length, 0)} held out`,
  );
  const setup = await setUpModel(recipe, tokenizer.tokenizer.vocabularySize);
  let runtime: TrainingRuntime | undefined;
  try {
    runtime = await openTrainingOn(options.backend, setup.model, {
      threads: options.threads ?? defaultThreads(),
      maxTokens: recipe.batch * recipe.context,
      maxSegments: recipe.batch,
      onNotice,
    });
    if (!options.resume) {
      await folder.writeJson("training.json", recipe);
      if (tokenizer.file) await folder.writeBytes(tokenizer.file.name, Buffer.from(tokenizer.file.content));
    }
    return await new Run(options, recipe, folder, data, setup, runtime).run();
  } finally {
    await runtime?.dispose();
    await setup.close();
  }
}

/** The recipe of the run in the folder. @throws OptionError where an option that was given is another one there */
async function resumedRecipe(folder: RunFolder, options: TrainOptions): Promise<Recipe> {
  const recipe = await folder.readRecipe();
  for (const [name, value] of Object.entries(recipe)) {
    const given = options[name as keyof TrainOptions];
    if (given === undefined || typeof value === "object" || given === value) continue;
    throw new OptionError(name, given, `${String(value)}, with which the run in ${folder.path} was begun`);
  }
  return recipe;
}

async function tokenizerOf(
  recipe: Recipe,
  folder: RunFolder,
  documents: Parameters<typeof trainTokenizer>[0] | undefined,
  { onNotice, signal }: TrainOptions,
): Promise<TrainingTokenizer> {
  if (recipe.tokenizer !== null) return existingTokenizer(recipe.tokenizer);
  if (recipe.from !== null) return checkpointTokenizer(recipe.from);
  if (!documents) return trainedTokenizer(await folder.readText("tokenizer.json"));
  onNotice?.(`training a tokenizer of ${recipe.vocabulary} tokens`);
  return trainTokenizer(documents, recipe.vocabulary, signal);
}

/** A row of the batch: the state that its sequence has, and room for the next. */
interface Row {
  state: ResidentState;
  next: ResidentState;
}

class Run {
  readonly #options: TrainOptions;
  readonly #recipe: Recipe;
  readonly #folder: RunFolder;
  readonly #data: Dataset;
  readonly #setup: ModelSetup;
  readonly #runtime: TrainingRuntime;
  readonly #batches: Batches;
  readonly #steps: number;
  readonly #warmup: number;
  readonly #dataChecksum: number;
  readonly #emptyState: Float32Array;
  /** The state that sequences begin with. */
  readonly #initial: ResidentState;
  readonly #rows: readonly Row[];
  #log: LogEntry[] = [];
  #step = 0;
  #savedStep = 0;
  /** Of earlier sittings. */
  #seconds = 0;
  readonly #started = performance.now();

  constructor(
    options: TrainOptions,
    recipe: Recipe,
    folder: RunFolder,
    data: Dataset,
    setup: ModelSetup,
    runtime: TrainingRuntime,
  ) {
    this.#options = options;
    this.#recipe = recipe;
    this.#folder = folder;
    this.#data = data;
    this.#setup = setup;
    this.#runtime = runtime;
    const { batch, context, seed, epochs } = recipe;
    this.#batches = recipe.carryState
      ? consecutiveBatches(data.tokens, batch, context)
      : shuffledBatches(data.tokens, batch, context, seed);
    this.#steps = recipe.steps ?? Math.max(1, Math.round((epochs ?? 1) * this.#batches.stepsPerEpoch));
    this.#warmup = recipe.warmup ?? Math.min(200, Math.floor(this.#steps / 50));
    const { buffer, byteOffset, byteLength } = data.tokens;
    this.#dataChecksum = crc32(new Uint8Array(buffer, byteOffset, byteLength));
    this.#emptyState = stateLayout(setup.model.graph).initial;
    this.#initial = runtime.createState();
    this.#rows = Array.from({ length: batch }, () => ({ state: runtime.createState(), next: runtime.createState() }));
  }

  async run(): Promise<TrainResult> {
    const { resume, signal, saveEvery = 100, validateEvery = 100 } = this.#options;
    if (resume) {
      const progress = await this.#folder.loadCheckpoint(this.#runtime.parameters, this.#carried());
      if (progress.data !== this.#dataChecksum) {
        throw new TrainingError(
          `${this.#options.data}: expected the data that the run in ${this.#folder.path} was begun with, found other text`,
        );
      }
      this.#step = progress.step;
      this.#savedStep = progress.step;
      this.#seconds = progress.seconds;
      this.#log = await this.#folder.readLog(progress.step);
    } else await this.#save(); // so that there is something to go on with from the first moment
    while (this.#step < this.#steps && !signal?.aborted) {
      const entry = await this.#trainStep(validateEvery);
      this.#log.push(entry);
      await this.#folder.log(entry);
      if (this.#step % saveEvery === 0 && this.#step < this.#steps) await this.#save();
    }
    const finished = this.#step >= this.#steps;
    const final =
      finished && this.#data.heldOut.length > 0 ? await this.#validate(Number.POSITIVE_INFINITY) : undefined;
    if (final !== undefined) {
      const entry = { step: this.#step, validation_bits_per_byte_of_all: final };
      this.#log.push(entry);
      await this.#folder.log(entry);
    }
    await this.#save();
    return {
      folder: this.#folder.path,
      step: this.#step,
      steps: this.#steps,
      loss: this.#log.findLast((entry) => entry["loss"] !== undefined)?.["loss"] as number,
      ...(final !== undefined && { validationBitsPerByte: final }),
      seconds: this.#elapsed(),
    };
  }

  async #trainStep(validateEvery: number): Promise<LogEntry> {
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
    const settings: OptimizerSettings = { ...this.#recipe, step: this.#step + 1, learningRate, epsilon: 1e-8 };
    const dropoutSeed = (Math.imul(seed, 0x9e3779b1) + this.#step) >>> 0;
    const { losses, gradientNorm } = await this.#runtime.step(segments, settings, dropoutSeed);
    let sum = 0;
    for (const loss of losses) sum += loss;
    const loss = sum / losses.length;
    this.#checkFinite(loss, gradientNorm);
    for (const row of this.#rows) [row.state, row.next] = [row.next, row.state];
    this.#step++;
    const tokensPerSecond = (windows.length * context * 1000) / (performance.now() - started);
    const measure = this.#step % validateEvery === 0 && this.#step < this.#steps && this.#data.heldOut.length > 0;
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
    this.#options.onStep?.({
      ...progress,
      steps: this.#steps,
      secondsLeft: ((this.#steps - this.#step) * windows.length * context) / tokensPerSecond,
      ...(validation !== undefined && { validationBitsPerByte: validation }),
    });
    return {
      step: progress.step,
      loss,
      bits_per_byte: progress.bitsPerByte,
      learning_rate: learningRate,
      gradient_norm: gradientNorm,
      tokens_per_second: Math.round(tokensPerSecond),
      seconds: Math.round(elapsed * 10) / 10,
      ...(validation !== undefined && { validation_bits_per_byte: validation }),
    };
  }

  #validate(limit: number): Promise<number | undefined> {
    const { batch, context } = this.#recipe;
    const begin = (state: ResidentState) => this.#begin(state);
    return bitsPerByte(this.#runtime, this.#data.heldOut, { batch, context, limit, begin });
  }

  /** Writes the state that sequences begin with. */
  #begin(state: { readonly values: Float32Array }): void {
    state.values.set(this.#emptyState);
    this.#setup.state?.write(state.values, (name) => this.#parameter(name).values);
  }

  #parameter(name: string): Parameter {
    return this.#runtime.parameters.find((parameter) => parameter.name === name) as Parameter;
  }

  /** @throws TrainingError that names the tensor and where to go on */
  #checkFinite(loss: number, gradientNorm: number): void {
    const limit = 3 * Math.log(this.#setup.size.vocabulary);
    if (Number.isFinite(loss) && Number.isFinite(gradientNorm) && loss < limit) return;
    const broken = this.#runtime.parameters.find(({ gradient }) => !gradient.every(Number.isFinite));
    const what = broken
      ? `the gradient of ${broken.name} is not finite`
      : `the loss is ${loss.toPrecision(4)} nats a token, where guessing gives ${(limit / 3).toPrecision(4)}`;
    throw new TrainingError(
      `step ${this.#step + 1}: ${what}; the last good checkpoint, of step ${this.#savedStep}, is in ${this.#folder.path}: ` +
        "begin again with a lower learning rate (--lr) or more warm-up, or check the data around it",
    );
  }

  /** @throws TrainingError when the disk is full, with what is there to go on with */
  async #save(): Promise<void> {
    try {
      await this.#writeFiles();
    } catch (cause) {
      if (!(cause instanceof CheckpointError)) throw cause;
      throw new TrainingError(
        `${cause.message}; what was saved at step ${this.#savedStep} is still in ${this.#folder.path}: make room, then resume (--resume)`,
        { cause },
      );
    }
    await this.#options.onSave?.({ step: this.#step, folder: this.#folder.path });
  }

  async #writeFiles(): Promise<void> {
    const { parameters } = this.#runtime;
    const { state } = this.#setup;
    await this.#folder.saveModel(this.#setup.weights(parameters, this.#recipe.dtype), this.#setup.metadata);
    if (state) {
      const values = new Float32Array(this.#emptyState.length);
      this.#begin({ values });
      const saved = { values, lastToken: undefined, position: 0 };
      await this.#folder.writeBytes("state.rwkv", encodeState(saved, state.fingerprint));
    }
    const progress = { step: this.#step, seconds: this.#elapsed(), data: this.#dataChecksum };
    await this.#folder.saveCheckpoint(parameters, this.#carried(), progress);
    this.#savedStep = this.#step;
    if (this.#log.length > 0) await this.#folder.writeText("loss.svg", await lossCurve(this.#log));
  }

  #carried() {
    if (!this.#recipe.carryState) return [];
    return this.#rows.map(({ state }, i) => ({ name: String(i), values: state.values }));
  }

  #elapsed(): number {
    return this.#seconds + (performance.now() - this.#started) / 1000;
  }
}
