// What the page and its worker say to each other: calls by name, each with an input, pieces on the way, and an output. Plain data alone.

import type {
  ChatFormatName,
  ChatMessage,
  FinishReason,
  ModelInfo,
  SamplingOptions,
  samplingPresets,
  WeightDType,
} from "rwkv";
import type { Explanation } from "rwkv/lab";

/** Where a model comes from. Further kinds are added here, in `sources.ts` and in `worker/open-source.ts`. */
export type Source =
  | { readonly kind: "embedded" }
  | NamedSource
  | { readonly kind: "url"; readonly url: string }
  | FileSource
  | { readonly kind: "kept"; readonly path: string };

/** A model on a hub, whose URL it is. */
export interface NamedSource {
  readonly kind: "name";
  readonly name: string;
  readonly hub: string;
}

export interface FileSource {
  readonly kind: "files";
  readonly model: File;
  /** Its tokenizer, or where the model is an index its shards, too. */
  readonly others: readonly File[];
}

/** Where to compute; "auto" is WebGPU where there is a GPU, else WebAssembly. */
export type Backend = "auto" | "webgpu" | "wasm"; // names that `load` takes

/** How a model is computed with. */
export interface Way {
  readonly dtype: WeightDType | "stored";
  readonly backend: Backend;
}

export interface LoadRequest extends Way {
  readonly source: Source;
}

/** What the page shows of a model that is loaded. */
export interface ModelFacts extends Omit<ModelInfo, "metadata"> {
  readonly name: string;
  /** undefined where the model has no tokenizer: then there is nothing to chat with. */
  readonly tokenizer: string | undefined;
  readonly whyNoTokenizer?: string;
  readonly format: ChatFormatName | undefined;
  readonly isEmbedded: boolean;
  /** Bytes of the weights as they lie in memory, about. */
  readonly weightBytes: number;
  readonly warnings: readonly string[];
}

/** What a file's header tells, before its weights are read. */
export interface Inspection {
  readonly name: string;
  /** Where it is from, as kept models tell it. */
  readonly from: string;
  readonly format: string;
  readonly tensors: number;
  readonly parameters: number;
  /** Bytes of its file, about. */
  readonly fileBytes: number;
  /** From the most exact type to the smallest. */
  readonly choices: readonly SizeChoice[];
}

/** A type that the weights may be loaded as, and their bytes in memory then, about. */
export interface SizeChoice {
  readonly dtype: WeightDType | "stored";
  readonly bytes: number;
}

/** A model that the browser keeps for this site, or a part of one. */
export interface KeptModel {
  readonly title: string;
  /** Where it came from: a repository on the hub, a URL, or "" for a file of the user. */
  readonly from: string;
  /** By which its download goes on; undefined where that is of no use. */
  readonly name?: string;
  readonly bytes: number;
  readonly size: number;
  /** Absent until it is complete. */
  readonly path?: string;
  /** What is removed with it, by names. */
  readonly files: readonly string[];
}

/** An official model. */
export interface HubModel {
  readonly name: string;
  /** Bytes of its file; of some only about. */
  readonly bytes: number;
  readonly isExact: boolean;
  readonly choices: readonly SizeChoice[];
  readonly path?: string;
}

/** The models that this site has, or could have. */
export interface Library {
  readonly kept: readonly KeptModel[];
  readonly known: readonly HubModel[];
  /** Bytes that the browser gives this site, and those in use; undefined where it keeps nothing. */
  readonly storage: { readonly quota: number; readonly usage: number } | undefined;
}

export interface Progress {
  readonly done: number;
  readonly total: number;
}

export type Sampling = Pick<
  SamplingOptions,
  "temperature" | "topP" | "topK" | "presencePenalty" | "frequencyPenalty" | "penaltyDecay"
>;
export type PresetName = keyof typeof samplingPresets;

export interface ChatRequest {
  readonly messages: readonly Pick<ChatMessage, "role" | "content">[];
  /** What the answer begins with, where it is to be continued: the text as the model wrote it. */
  readonly begun: string;
  readonly format: ChatFormatName | "auto";
  readonly thinks: boolean;
  readonly sampling: Sampling;
  readonly maxTokens: number;
}

export interface ChatPiece {
  readonly thought: string;
  readonly text: string;
  /** As the model wrote it, tags of thoughts included. */
  readonly raw: string;
}

/** How a text ended, and what it took. */
export interface Ending {
  readonly reason: FinishReason;
  readonly generatedTokens: number;
  readonly tokensPerSecond: number;
  /** Tokens before the answer, and how many of them a kept state had read already; undefined where a server does not tell. */
  readonly promptTokens?: number;
  readonly reusedTokens?: number;
}

export interface CompleteRequest {
  readonly prompt: string;
  /** Tokens behind the prompt that are settled: ids here, texts for servers. */
  readonly kept: readonly { readonly id: number; readonly text: string }[];
  readonly sampling: Sampling;
  readonly maxTokens: number;
}

/** A token that was written, with the model's own probabilities. */
export interface WrittenToken {
  readonly id: number;
  readonly text: string;
  readonly probability: number;
  readonly others: readonly { readonly id: number; readonly text: string; readonly probability: number }[];
}

export interface TrainRequest {
  readonly text: string;
  readonly seconds: number;
  readonly layers: number;
  readonly width: number;
}

export interface TrainPiece {
  readonly step: number;
  readonly loss: number;
  readonly bitsPerByte: number;
  /** Of the text that is held out, where it was measured. */
  readonly validation?: number;
  readonly tokensPerSecond: number;
  readonly progress: number;
}

export interface Trained {
  readonly pth: Blob;
  readonly tokenizer: Blob;
  readonly parameters: number;
  readonly steps: number;
  readonly bitsPerByte: number;
}

export interface Distribution {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export interface BenchResult {
  /** Milliseconds a token of decoding. */
  readonly decode: Distribution;
  readonly decodeTokensPerSecond: number;
  readonly promptTokens: number;
  /** Tokens a second of prompts: half of the rounds were faster, nine tenths were. */
  readonly promptTokensPerSecond: number;
  readonly promptTokensPerSecondP90: number;
  readonly generateTokensPerSecond: number;
}

interface Call<Input, Output, Piece = never> {
  readonly input: Input;
  readonly output: Output;
  readonly piece: Piece;
}

/** All calls. */
export interface Calls {
  inspect: Call<Source, Inspection>;
  load: Call<LoadRequest, ModelFacts, Progress>;
  library: Call<null, Library>;
  /** Brings a model into the browser's storage, and gives its path. */
  keep: Call<Source, string, Progress>;
  /** Removes files from there, by names. */
  remove: Call<readonly string[], null>;
  chat: Call<ChatRequest, Ending, ChatPiece>;
  complete: Call<CompleteRequest, Ending, WrittenToken>;
  explain: Call<string, Explanation>;
  train: Call<TrainRequest, Trained, TrainPiece>;
  bench: Call<null, BenchResult, Progress>;
}
export type CallName = keyof Calls;

export type ToWorker =
  | {
      readonly [Name in CallName]: { readonly id: number; readonly call: Name; readonly input: Calls[Name]["input"] };
    }[CallName]
  | { readonly id: number; readonly abort: true };

export type ToPage =
  | { readonly id: number; readonly piece: Calls[CallName]["piece"] }
  | { readonly id: number; readonly output: Calls[CallName]["output"] }
  | { readonly id: number; readonly error: { readonly name: string; readonly message: string } };
