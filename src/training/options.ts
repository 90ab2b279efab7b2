// The options of training: what each means, what it is by default, and what is refused.

import type { BackendName } from "../backends/backend.js";
import type { FloatType } from "../dtypes.js";
import { OptionError } from "../errors.js";

/** Low-rank adaptation: learns the product of two small matrices for each of some matrices (Hu et al., arXiv 2106.09685). */
export interface LoraOptions {
  /** Inner size of the product, r in the paper. Default 8. */
  readonly rank?: number;
  /** The product is multiplied by alpha / rank. Default 2 * rank. */
  readonly alpha?: number;
  /** Endings of the names of matrices, such as "att.key". By default all of the layers. */
  readonly matrices?: readonly string[];
}

/** Options of `train`. What is recorded in the run's training.json is what its result depends on. */
export interface TrainOptions {
  /** A text file, a folder of .txt and .md files, or .jsonl with a `text` on each line. */
  readonly data: string;
  /** Folder of the run: model, tokenizer, log, curve, and what resuming needs. */
  readonly out: string;
  /** Go on with the run in `out`, with its own options. */
  readonly resume?: boolean;
  /** A checkpoint to begin with; by default random weights. */
  readonly from?: string;
  /** A tokenizer; by default the one beside `from`, or one that is trained on the data. */
  readonly tokenizer?: string;

  /** Layers of a new model. Default 6. */
  readonly layers?: number;
  /** Width of its residual stream. Default 256. */
  readonly width?: number;
  /** Width of the hidden layer of channel mixing. Default 4 * width. */
  readonly hidden?: number;
  /** Tokens of a tokenizer that is trained. Default 4096. */
  readonly vocabulary?: number;

  /** Tokens of a sequence. Default 256. */
  readonly context?: number;
  /** Sequences of a step. Default 16. */
  readonly batch?: number;
  /** Steps in all; or passes over the data. Default: one pass. */
  readonly steps?: number;
  readonly epochs?: number;

  /** Highest learning rate. Default 8e-4; 1e-4 with `from`; 1e-2 for the state. */
  readonly learningRate?: number;
  /** The rate at the end. Default: a tenth. */
  readonly finalLearningRate?: number;
  /** Default "cosine". */
  readonly decay?: "cosine" | "exponential";
  /** Steps in which the rate rises. Default: a fiftieth of the steps, at most 200. */
  readonly warmup?: number;
  /** Share of a matrix that decays for each step at learning rate 1. Default 0.01. */
  readonly weightDecay?: number;
  readonly beta1?: number;
  readonly beta2?: number;
  /** Gradients together longer than this are shortened to it. Default 1. */
  readonly maxGradientNorm?: number;
  /** What the largest logit is pulled down by (RWKV-LM's L2Wrap). Default 1e-4. */
  readonly logitPenalty?: number;
  /** Share of what each part of a layer adds that is left out in each step. Default 0. */
  readonly dropout?: number;
  /** Default 1. */
  readonly seed?: number;

  /** Learn low-rank additions to the matrices of `from` only. */
  readonly lora?: LoraOptions;
  /** Learn only the state that sequences begin with. */
  readonly tuneState?: boolean;
  /** Read the text in order and hand the state on from step to step: truncated back-propagation through time. */
  readonly carryState?: boolean;
  /** Compute values between layers again rather than keep them: far less memory, a third more time. */
  readonly checkpointing?: boolean;

  /** Share of each document's end that is held out to measure with. Default 0.05; 0 holds out nothing. */
  readonly validation?: number;
  /** Steps between measurements on a part of it. Default 100. */
  readonly validateEvery?: number;
  /** Steps between saves. Default 100. */
  readonly saveEvery?: number;
  /** Type of the weights in the saved model. Default f32. */
  readonly dtype?: FloatType;

  readonly backend?: BackendName;
  readonly threads?: number;
  /** Stops after the step in progress, and saves. */
  readonly signal?: AbortSignal;
  readonly onStep?: (progress: StepProgress) => void;
  readonly onSave?: (progress: SaveProgress) => void | Promise<void>;
  /** Called with lines that the user should see. Default: nothing is said. */
  readonly onNotice?: (message: string) => void;
}

/** What is told after every step. */
export interface StepProgress {
  /** Steps done, and in all. */
  readonly step: number;
  readonly steps: number;
  /** Mean over the step's tokens, in nats a token. */
  readonly loss: number;
  readonly bitsPerByte: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
  /** Bits per byte of the held-out text, at steps where it was measured. */
  readonly validationBitsPerByte?: number;
}

/** What is told when a run was saved. */
export interface SaveProgress {
  readonly step: number;
  /** Folder with the model as it is now. */
  readonly folder: string;
}

/** How a run ended. */
export interface TrainResult {
  /** Folder with the model; `load` takes it. */
  readonly folder: string;
  /** Steps done; fewer than `steps` where the run was stopped. */
  readonly step: number;
  readonly steps: number;
  /** Of the last step, in nats a token. */
  readonly loss: number;
  /** Of all held-out text; absent where none is held out. */
  readonly validationBitsPerByte?: number;
  readonly seconds: number;
}

/** Everything that the result of a run depends on, beside the data; recorded in training.json. */
export interface Recipe {
  readonly from: string | null;
  readonly tokenizer: string | null;
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly batch: number;
  readonly steps: number | null;
  readonly epochs: number | null;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly decay: "cosine" | "exponential";
  readonly warmup: number | null;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly maxGradientNorm: number;
  readonly logitPenalty: number;
  readonly dropout: number;
  readonly seed: number;
  readonly lora: Required<LoraOptions> | null;
  readonly tuneState: boolean;
  readonly carryState: boolean;
  readonly checkpointing: boolean;
  readonly validation: number;
  readonly dtype: FloatType;
}

/** Matrices that LoRA adapts if nobody says. */
const layerMatrices = [
  "att.key",
  "att.value",
  "att.receptance",
  "att.output",
  "ffn.key",
  "ffn.value",
  "ffn.receptance",
] as const;

/** @throws OptionError for a value outside its range, or options that exclude each other */
export function recipeOf(options: TrainOptions): Recipe {
  const { from, lora, tuneState = false, width = 256 } = options;
  for (const [name, needed] of [
    ["lora", lora !== undefined],
    ["tuneState", tuneState],
  ] as const) {
    if (needed && from === undefined) throw new OptionError(name, true, "a checkpoint to begin with (from)");
  }
  if (lora && tuneState) throw new OptionError("lora", lora, "either lora or tuneState");
  if (options.steps !== undefined && options.epochs !== undefined) {
    throw new OptionError("epochs", options.epochs, "either steps or epochs");
  }
  const learningRate = options.learningRate ?? (tuneState ? 1e-2 : from === undefined ? 8e-4 : 1e-4);
  const rank = lora?.rank ?? 8;
  const recipe: Recipe = {
    from: from ?? null,
    tokenizer: options.tokenizer ?? null,
    layers: options.layers ?? 6,
    width,
    hidden: options.hidden ?? 4 * width,
    vocabulary: options.vocabulary ?? 4096,
    context: options.context ?? 256,
    batch: options.batch ?? 16,
    steps: options.steps ?? null,
    epochs: options.steps === undefined ? (options.epochs ?? 1) : null,
    learningRate,
    finalLearningRate: options.finalLearningRate ?? learningRate / 10,
    decay: options.decay ?? "cosine",
    warmup: options.warmup ?? null,
    weightDecay: options.weightDecay ?? 0.01,
    beta1: options.beta1 ?? 0.9,
    beta2: options.beta2 ?? 0.99,
    maxGradientNorm: options.maxGradientNorm ?? 1,
    logitPenalty: options.logitPenalty ?? 1e-4,
    dropout: options.dropout ?? 0,
    seed: options.seed ?? 1,
    lora: lora ? { rank, alpha: lora.alpha ?? 2 * rank, matrices: lora.matrices ?? layerMatrices } : null,
    tuneState,
    carryState: options.carryState ?? false,
    checkpointing: options.checkpointing ?? false,
    validation: options.validation ?? 0.05,
    dtype: options.dtype ?? "f32",
  };
  checkRecipe(recipe);
  return recipe;
}

function checkRecipe(recipe: Recipe): void {
  const whole = (name: keyof Recipe, low: number, high: number) => {
    const value = recipe[name];
    if (value === null) return;
    if (!Number.isInteger(value) || (value as number) < low || (value as number) > high) {
      throw new OptionError(name, value, `a whole number from ${low} to ${high}`);
    }
  };
  const between = (name: keyof Recipe, low: number, high: number) => {
    const value = recipe[name] as number;
    if (!(value >= low && value <= high)) throw new OptionError(name, value, `a number from ${low} to ${high}`);
  };
  whole("layers", 1, 1024);
  whole("width", 1, 65536);
  whole("hidden", 1, 262144);
  whole("vocabulary", 257, 2 ** 20);
  whole("context", 1, 2 ** 20);
  whole("batch", 1, 65536);
  whole("steps", 1, 2 ** 31);
  whole("warmup", 0, 2 ** 31);
  whole("seed", 0, 2 ** 32 - 1);
  if (recipe.epochs !== null) between("epochs", Number.MIN_VALUE, 1e6);
  between("learningRate", Number.MIN_VALUE, 10);
  between("finalLearningRate", Number.MIN_VALUE, 10);
  between("weightDecay", 0, 100);
  between("beta1", 0, 0.9999999);
  between("beta2", 0, 0.9999999);
  between("maxGradientNorm", Number.MIN_VALUE, Number.MAX_VALUE);
  between("logitPenalty", 0, 1);
  between("dropout", 0, 0.9);
  between("validation", 0, 0.5);
  if (recipe.decay !== "cosine" && recipe.decay !== "exponential") {
    throw new OptionError("decay", recipe.decay, "cosine or exponential");
  }
  if (recipe.lora) {
    const { rank, alpha, matrices } = recipe.lora;
    if (!Number.isInteger(rank) || rank < 1 || rank > 65536)
      throw new OptionError("lora.rank", rank, "a whole number >= 1");
    if (!(alpha > 0)) throw new OptionError("lora.alpha", alpha, "a number > 0");
    const unknown = matrices.find((name) => !(layerMatrices as readonly string[]).includes(name));
    if (unknown !== undefined) throw new OptionError("lora.matrices", unknown, layerMatrices.join(", "));
  }
}
