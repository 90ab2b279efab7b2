// The options of training: what each means, and what it is by default.

import type { BackendName } from "../backends/backend.js";
import type { FloatType } from "../dtypes.js";

/**
 * Options of low-rank adaptation, which learns the product of two small matrices for each of some matrices (Hu et al., arXiv
 * 2106.09685).
 */
export interface LoraOptions {
  /** The inner size of the product, r in the paper. Default 8. */
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
   * `output`; or a folder of such files. Of `messages` and instructions only the answers are learned. Or a binidx, `x.bin` and
   * `x.idx`, named as `x` or either of them: tokens that were made by the run's tokenizer.
   */
  readonly data: string;
  /** Folder of the run: model, tokenizer, log, curve, and what resuming needs. */
  readonly out: string;
  /**
   * Resume the run in `out`, with its own options. Of the options that the result depends on, only `steps` or `epochs` may
   * change, which sets a new end. `from` says where the base model is now, if it was moved.
   */
  readonly resume?: boolean;
  /** A checkpoint to begin with; by default random weights. */
  readonly from?: string;
  /**
   * A tokenizer's file, a folder with one, "world" or "bytes"; by default the one beside `from`, or one that is trained on the
   * data.
   */
  readonly tokenizer?: string;

  /** The RWKV version of a new model, such as "4". Default: the newest that can be trained. */
  readonly version?: string;
  /** The number of layers of a new model. Default 6. */
  readonly layers?: number;
  /** The width of a new model's residual stream. Default 256. */
  readonly width?: number;
  /** Width of the hidden layer of channel mixing. Default: as its version has it, 4 * width. */
  readonly hidden?: number;
  /** The number of tokens of a tokenizer that is trained. Default 4096. */
  readonly vocabulary?: number;

  /** The length of a sequence, in tokens. Default 256. */
  readonly context?: number;
  /** The number of sequences in a step. Default 16. */
  readonly batch?: number;
  /** The number of steps of the run. Either this or `epochs`. */
  readonly steps?: number;
  /** The number of passes over the data. Default 1. */
  readonly epochs?: number;

  /** The highest learning rate. Default 8e-4; 1e-4 with `from`; 1e-2 with `tuneState`. */
  readonly learningRate?: number;
  /** The learning rate at the end. Default: a tenth of the highest. */
  readonly finalLearningRate?: number;
  /** How the learning rate falls. Default "cosine". */
  readonly decay?: "cosine" | "exponential";
  /** The number of warm-up steps, in which the learning rate rises. Default: a fiftieth of the steps, at most 200. */
  readonly warmup?: number;
  /**
   * The weight decay of AdamW, applied to matrices: the fraction of a weight that decays in each step at learning rate 1. Default
   * 0.01.
   */
  readonly weightDecay?: number;
  /** The decay of AdamW's first moment. Default 0.9. */
  readonly beta1?: number;
  /** The decay of AdamW's second moment. Default 0.99. */
  readonly beta2?: number;
  /** The norm of all gradients together is clipped to this. Default 1. */
  readonly maxGradientNorm?: number;
  /** The weight of the penalty on the largest logit of each token (RWKV-LM's L2Wrap). Default 1e-4. */
  readonly logitPenalty?: number;
  /** The fraction of the output of each half-layer that dropout leaves out. Default 0. */
  readonly dropout?: number;
  /** The seed of weights, order and dropout. Default 1. */
  readonly seed?: number;

  /** Learns only low-rank additions to the matrices of `from`. */
  readonly lora?: LoraOptions;
  /** Learns only the state that sequences begin with. */
  readonly tuneState?: boolean;
  /** Reads the text in order and passes the state from step to step: truncated back-propagation through time. */
  readonly carryState?: boolean;
  /** Recomputes the values between layers rather than keep them: far less memory, a third more time. */
  readonly checkpointing?: boolean;

  /** The fraction of the text that is held out for measuring. Default 0.05; 0 holds out nothing. */
  readonly validation?: number;
  /** The number of steps between measurements on a part of the held-out text. Default 100. */
  readonly validateEvery?: number;
  /** The number of steps between saves. Default 100. */
  readonly saveEvery?: number;
  /** The type of the weights in the saved model. Default "f32". */
  readonly dtype?: FloatType;

  readonly backend?: BackendName;
  readonly threads?: number;
  /**
   * Stops the run after the step in progress and saves it, or as soon as possible before the first step. The promise is then
   * fulfilled.
   */
  readonly signal?: AbortSignal;
  /** Called after each step. If it throws or rejects, the run ends with that error and can be resumed from the last save. */
  readonly onStep?: (progress: StepProgress) => void | Promise<void>;
  readonly onSave?: (progress: SaveProgress) => void | Promise<void>;
  /** Called with lines that the user should see. */
  readonly onNotice?: (message: string) => void;
}

/** The progress of a run, after a step. */
export interface StepProgress {
  /** The number of steps done. */
  readonly step: number;
  readonly steps: number;
  /** The mean loss of the step's tokens, in nats per token. */
  readonly loss: number;
  readonly bitsPerByte: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
  readonly secondsLeft: number;
  /** Bits per byte of the held-out text; present at steps where it was measured. */
  readonly validationBitsPerByte?: number;
}

/** Passed to `onSave` after a run was saved. */
export interface SaveProgress {
  readonly step: number;
  /** The folder with the model as it is now. */
  readonly folder: string;
}

/** The result of a run. */
export interface TrainResult {
  /** The folder with the model, which `load` takes. */
  readonly folder: string;
  /** Whether all steps were done. */
  readonly finished: boolean;
  /** Whether the folder has something to resume; false when the run was stopped before its first save. */
  readonly saved: boolean;
  /** The number of steps done, fewer than `steps` when the run was stopped. */
  readonly step: number;
  /** The number of steps of the run; absent when it was stopped before that was known. */
  readonly steps?: number;
  /** The loss of the last step, in nats per token; absent when there was no step. */
  readonly loss?: number;
  /** Bits per byte of all held-out text; absent when none is held out. */
  readonly validationBitsPerByte?: number;
  readonly seconds: number;
}
