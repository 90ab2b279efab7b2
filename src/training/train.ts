// A training run: turns data into tokens, sets up a model, and runs the steps (run.ts). Where several ranks share a run (ranks.ts),
// the first one has the folder and reads the data; what follows from them it tells the others.

import { defaultThreads } from "#platform/backends";
import type { TrainingRuntime } from "../backends/training.js";
import { crc32 } from "../checksum.js";
import { OptionError, TrainingError } from "../errors.js";
import { InterruptedError } from "../interruptible.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { checkBase, openBase } from "./base-model.js";
import { consecutiveBatches, shuffledBatches } from "./batches.js";
import { type BinidxFiles, binidxAt, readBinidx, tokenizedDataset } from "./binidx.js";
import { checkedOptions } from "./checked-options.js";
import { type Dataset, datasetOf, type LearnedTokens } from "./dataset.js";
import { holdOut, type SplitDocuments } from "./document.js";
import { readDocuments } from "./documents.js";
import { threadsOfRank } from "./launched-ranks.js";
import { loraOf } from "./lora-options.js";
import { type ModelSetup, setUpModel } from "./model-setup.js";
import { openTrainingOn } from "./open-training.js";
import type { TrainOptions, TrainResult } from "./options.js";
import { agreed, joinRanks, type Ranks, shared } from "./ranks.js";
import { type Recipe, recipeOf } from "./recipe.js";
import { extended, resumedRecipe, sizeOptions } from "./resumption.js";
import { rowShare } from "./row-share.js";
import { Run } from "./run.js";
import { type Progress, RunFolder } from "./run-folder.js";
import { checkTokenizer, newTokenizer, tokenizerOfRun } from "./run-tokenizer.js";
import { rankData } from "./shared-data.js";

/**
 * Trains a model on text and leaves it in a folder. The options are copied when the function is called. In processes that mpirun has
 * started together it is one run, in which all of them must call it with the same options; the first one alone writes the folder and
 * calls what is to be called.
 *
 * @throws TrainingError when the data cannot be used, a run cannot be resumed, another call trains in the folder, or the loss is
 *   no longer a number; OptionError, CheckpointError, TokenizerError, BackendError
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  const copied = outcomeOf(() => checkedOptions(options)); // at once, since the caller may change them
  const ranks = await joinRanks();
  const isFirst = ranks.rank === 0;
  const { given, fresh } = await agreed(ranks, () => optionsOf(copied(), isFirst));
  const folder = await agreed(ranks, async () => {
    if (isFirst) return fresh ? RunFolder.create(given.out) : RunFolder.resume(given.out);
    return undefined;
  });
  let progress: Progress | undefined;
  try {
    const own = await agreed(ranks, async () => {
      if (!folder) return undefined;
      const recipe = fresh ?? resumedRecipe(await folder.readRecipe(), given, folder.path);
      checkBatch(recipe, ranks);
      progress = await folder.readProgress();
      return prepared(folder, given, recipe, progress);
    });
    const { data, ...rest } = own ?? ({} as Prepared);
    const { validateEvery, saveEvery } = given;
    const told = await shared(ranks, { ...rest, progress: progress ?? null, validateEvery, saveEvery });
    progress = told.progress ?? undefined;
    const options = { ...given, validateEvery: told.validateEvery, saveEvery: told.saveEvery } as TrainOptions;
    return await runOn(ranks, options, folder, { ...told, data }, progress);
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    const { step = 0, seconds = 0 } = progress ?? {};
    const saved = folder ? folder.saved : progress !== undefined;
    return { folder: given.out, finished: false, saved, step, seconds };
  } finally {
    await folder?.close();
  }
}

/** Does work at once; what it gave or threw comes when it is asked for. */
function outcomeOf<Result>(work: () => Result): () => Result {
  try {
    const result = work();
    return () => result;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

/** The options of this rank, of which the first alone tells of the run, and the recipe of a run that begins. @throws OptionError */
function optionsOf(checked: TrainOptions, isFirst: boolean): { given: TrainOptions; fresh: Recipe | undefined } {
  const { onNotice: _, onStep: __, onSave: ___, ...silent } = checked;
  return { given: isFirst ? checked : silent, fresh: checked.resume ? undefined : recipeOf(checked) };
}

/** @throws OptionError where ranks would have nothing to do */
function checkBatch({ batch }: Recipe, { size }: Ranks): void {
  if (batch < size) throw new OptionError("batch", batch, `at least ${size}, a sequence of each step for every rank`);
}

/** What the first rank finds in its folder and in the data. */
interface Prepared {
  readonly recipe: Recipe;
  readonly vocabularySize: number;
  readonly checksum: number;
  readonly data: Dataset;
}

/** @param progress of a run that was saved before */
async function prepared(
  folder: RunFolder,
  given: TrainOptions,
  wanted: Recipe,
  progress: Progress | undefined,
): Promise<Prepared> {
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
  const { stepsPerEpoch } = batchesOf(recipe, data);
  const final = given.resume ? extended(recipe, given, stepsPerEpoch, progress?.step ?? 0) : recipe;
  return { recipe: final, vocabularySize: tokenizer.tokenizer.vocabularySize, checksum, data };
}

/** @throws TrainingError where there is too little text for the batch */
function batchesOf({ carryState, batch, context, seed }: Recipe, data: Dataset) {
  return carryState ? consecutiveBatches(data, batch, context) : shuffledBatches(data, batch, context, seed);
}

/** Sets up the model on each rank, and runs the steps. */
async function runOn(
  ranks: Ranks,
  options: TrainOptions,
  folder: RunFolder | undefined,
  { recipe, vocabularySize, checksum, data }: Omit<Prepared, "data"> & { readonly data: Dataset | undefined },
  progress: Progress | undefined,
): Promise<TrainResult> {
  const { signal, onNotice = () => {}, threads = threadsOfRank(defaultThreads()) } = options;
  const share = rowShare(recipe.batch, ranks.rank, ranks.size);
  const own = data && { ...data, batches: batchesOf(recipe, data) };
  const ofRank = await rankData(ranks, own, recipe, share);
  const sequences = share.end - share.begin;
  let setup: ModelSetup | undefined;
  let runtime: TrainingRuntime | undefined;
  try {
    const parts = await agreed(ranks, async () => {
      // The first rank has looked at it before.
      if (recipe.from !== null && !folder) await checkBase(recipe.from, recipe.baseFingerprint, options.out);
      setup = await setUpModel(recipe, { vocabularySize }, { signal, sequences });
      runtime = await openTrainingOn(options.backend, setup.model, {
        threads,
        maxTokens: sequences * recipe.context,
        maxSegments: sequences,
        onNotice,
      });
      if (options.resume) await folder?.writeRecipe(recipe);
      return { setup, runtime };
    });
    return await new Run({ options, recipe, ranks, share, folder, data: ofRank, checksum, ...parts }).run(progress);
  } finally {
    await (runtime as TrainingRuntime | undefined)?.dispose();
    await (setup as ModelSetup | undefined)?.close();
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
