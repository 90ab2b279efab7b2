// The options of training: what each means, and what it is by default.

import type { BackendName } from "../backends/backend.js";
import type { FloatType } from "../dtypes.js";

/** Low-rank adaptation: learns the product of two small matrices for each of some matrices (Hu et al., arXiv 2106.09685). */
export interface LoraOptions {
  /** Inner size of the product, r in the paper. Default 8. */
  readonly rank?: number;
  /** The product is multiplied by alpha / rank. Default 2 * rank. */
  readonly alpha?: number;
  /** Endings of the names of matrices, such as "att.key". By default all that the version names. */
  readonly matrices?: readonly string[];
}

/** Options of `train`. What is recorded in the run's training.json is what its result depends on. */
export interface TrainOptions {
  /**
   * A text file; a file of JSON records, by lines or as an array, each with a `text`, with `messages`, or with `instruction` and
   * `output`; or a folder of such files.
   */
  readonly data: string;
  /** Folder of the run: model, tokenizer, log, curve, and what resuming needs. */
  readonly out: string;
  /**
   * Resume the run in `out`, with its own options. Of those that the result depends on only `steps` or `epochs` may be others: then the
   * run ends there. `from` says where its base model lies, should that have been moved.
   */
  readonly resume?: boolean;
  /** A checkpoint to begin with; by default random weights. */
  readonly from?: string;
  /** A tokenizer's file, a folder with one, or "bytes"; by default the one beside `from`, or one that is trained on the data. */
  readonly tokenizer?: string;

  /** Layers of a new model. Default 6. */
  readonly layers?: number;
  /** Width of its residual stream. Default 256. */
  readonly width?: number;
  /** Width of the hidden layer of channel mixing. Default: as its version has it, 4 * width. */
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
  /** Stops after the step in progress, and saves; before the first step as soon as can be. The promise is fulfilled all the same. */
  readonly signal?: AbortSignal;
  /** What it throws, or rejects with, ends the run; the last save stays as it is, and the run can be resumed. */
  readonly onStep?: (progress: StepProgress) => void | Promise<void>;
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
  /** Whether all steps are done. */
  readonly finished: boolean;
  /** Whether there is anything in the folder to resume; not where a run was stopped before its first save. */
  readonly saved: boolean;
  /** Steps done; fewer than `steps` where the run was stopped. */
  readonly step: number;
  /** Steps in all; absent where the run was stopped before that was known. */
  readonly steps?: number;
  /** Of the last step, in nats a token; absent where there was none. */
  readonly loss?: number;
  /** Of all held-out text; absent where none is held out. */
  readonly validationBitsPerByte?: number;
  readonly seconds: number;
}
