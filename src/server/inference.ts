// The one way from requests to the model: places, prompts through the cache, texts, and how all of it ends. Resources are its clients.

import type { GenerationOptions } from "../generation/generation-options.js";
import type { GenerationResult } from "../generation/generation-progress.js";
import type { Model } from "../generation/model.js";
import type { Session } from "../generation/session.js";
import type { Admission } from "./admission.js";
import { ApiError } from "./errors.js";
import type { Metrics } from "./metrics.js";
import type { ServerLimits } from "./options.js";
import type { PromptReader, ReadPrompt } from "./prompt-reader.js";
import { type Prompt, promptTooLong } from "./prompts.js";
import { TextChoice } from "./text-choice.js";
import { noteTexts, TextTrace, traced } from "./tracing.js";

/** What texts are wanted. */
export interface TextRequest {
  /** What stands for the API key of whoever asks: what was read with another is not theirs. */
  readonly owner: string;
  readonly prompts: readonly Prompt[];
  /** How many texts for each prompt; they share the reading of it. */
  readonly choices: number;
  /** How they are written. The first of a prompt has the seed, the others the numbers after it. */
  readonly generation: Omit<GenerationOptions, "signal" | "onPromptProgress">;
  /** Aborted when nobody wants the texts any more. */
  readonly signal: AbortSignal;
}

/** Prompts that are wanted as states. */
export interface ReadRequest {
  /** What stands for the API key of whoever asks. */
  readonly owner: string;
  readonly prompts: readonly Prompt[];
  /** How many states the model is to hold at once, at most. */
  readonly places: number;
  readonly signal: AbortSignal;
}

/** Work that can be ended from outside. */
interface Run {
  stop(ending: Ending): void;
  /** Resolves when it has ended and its places are free. */
  readonly ended: Promise<void>;
}

/** All work of an application. */
interface Progress {
  readonly runs: Set<Run>;
  isDraining: boolean;
}

/** Why texts were ended from outside. */
type Ending = "client" | "timeout" | "shutdown";

const endings = {
  client: () => new ApiError(499, "the client left", { code: "client_left" }),
  timeout: () =>
    new ApiError(503, "the request took longer than this server allows, and no text was begun", {
      code: "timeout",
      retryAfter: 1,
    }),
  shutdown: () => shuttingDown(),
} as const;

/** Carries out requests on one model. */
export class Inference {
  readonly #model: Model;
  readonly #reader: PromptReader;
  readonly #admission: Admission;
  readonly #metrics: Metrics;
  readonly #limits: ServerLimits;
  readonly #progress: Progress;

  constructor(
    model: Model,
    reader: PromptReader,
    admission: Admission,
    metrics: Metrics,
    limits: ServerLimits,
    progress: Progress = { runs: new Set(), isDraining: false },
  ) {
    this.#model = model;
    this.#reader = reader;
    this.#admission = admission;
    this.#metrics = metrics;
    this.#limits = limits;
    this.#progress = progress;
  }

  /** The same with other limits of a request. Places are shared, and what is in progress ends with this one. */
  within(limits: ServerLimits): Inference {
    return new Inference(this.#model, this.#reader, this.#admission, this.#metrics, limits, this.#progress);
  }

  /** Whether new requests are taken. */
  get isReady(): boolean {
    return !this.#progress.isDraining && !this.#admission.isFull;
  }

  /** @throws ApiError once the server is shutting down */
  checkOpen(): void {
    if (this.#progress.isDraining) throw shuttingDown();
  }

  /**
   * Waits for places and reads the prompt. Nothing is written until the texts are asked for. Whoever starts a run ends it.
   *
   * @throws ApiError; LimitError
   */
  async start(request: TextRequest): Promise<TextRun> {
    this.#check(request.prompts);
    noteTexts(request.generation, request.choices);
    const run = new TextRun(this.#model, this.#reader, this.#metrics, request);
    this.#watch(run, request.signal);
    await run.begin(this.#admission);
    return run;
  }

  /**
   * Waits for places, reads prompts, and does something with them.
   *
   * @param use is given the prompts, and a signal that is aborted when nobody wants its result any more
   * @throws ApiError; LimitError; what `use` throws
   */
  async read<T>(request: ReadRequest, use: (read: ReadPrompt[], signal: AbortSignal) => T | Promise<T>): Promise<T> {
    const { owner, prompts, places, signal } = request;
    this.#check(prompts);
    const stopping = new AbortController();
    let ending: Ending | undefined;
    let resolveEnded = () => {};
    const ended = new Promise<void>((resolve) => {
      resolveEnded = resolve;
    });
    const stop = (why: Ending) => {
      ending ??= why;
      stopping.abort();
    };
    this.#watch({ ended, stop }, signal);
    let taken: (() => void)[] = [];
    try {
      taken = await traced("queue", () => this.#admission.enter(places, stopping.signal));
      const reading = await Promise.allSettled(
        prompts.map((prompt) => this.#reader.read(prompt, owner, stopping.signal)),
      );
      stopping.signal.throwIfAborted();
      const read = reading.map(fulfilled);
      this.#metrics.promptTokens.inc(tokensOf(prompts));
      this.#metrics.cachedTokens.inc(cachedTokensOf(read));
      return await use(read, stopping.signal);
    } catch (error) {
      throw ending ? endings[ending]() : error;
    } finally {
      for (const leave of taken) leave();
      resolveEnded();
    }
  }

  /** @throws ApiError once the server is shutting down, and for prompts that are too long */
  #check(prompts: readonly Prompt[]): void {
    this.checkOpen();
    const { promptTokens } = this.#limits;
    for (const { tokens } of prompts) {
      if (tokens.length > promptTokens) throw promptTooLong(`${tokens.length} tokens`, promptTokens);
    }
  }

  /** Ends work that takes too long, or that nobody wants any more. */
  #watch(run: Run, signal: AbortSignal): void {
    const { requestSeconds } = this.#limits;
    const { runs } = this.#progress;
    runs.add(run);
    const timer = setTimeout(() => run.stop("timeout"), requestSeconds * 1000);
    const leave = () => run.stop("client");
    signal.addEventListener("abort", leave);
    void run.ended.then(() => {
      runs.delete(run);
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
    });
    if (signal.aborted) leave();
  }

  /** Takes no new requests, and resolves when those in progress have ended, or were ended after `milliseconds`. */
  async close(milliseconds: number): Promise<void> {
    const { runs } = this.#progress;
    this.#progress.isDraining = true;
    const stop = () => {
      for (const run of runs) run.stop("shutdown");
    };
    const timer = setTimeout(stop, milliseconds);
    await Promise.all([...runs].map(({ ended }) => ended));
    clearTimeout(timer);
  }
}

/** The texts of one request. */
export class TextRun {
  readonly #model: Model;
  readonly #reader: PromptReader;
  readonly #metrics: Metrics;
  readonly #request: TextRequest;
  readonly #stopping = new AbortController();
  readonly #asked = performance.now();
  #ending: Ending | undefined;
  #read: readonly ReadPrompt[] = [];
  #choices: TextChoice[] = [];
  #resolveEnded: () => void = () => {};
  /** Resolves when all texts have ended and their places are free. */
  readonly ended: Promise<void>;

  constructor(model: Model, reader: PromptReader, metrics: Metrics, request: TextRequest) {
    this.#model = model;
    this.#reader = reader;
    this.#metrics = metrics;
    this.#request = request;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get choices(): readonly TextChoice[] {
    return this.#choices;
  }

  /** Tokens of the prompts, and of the states that they say they begin with. */
  get promptTokens(): number {
    return tokensOf(this.#request.prompts);
  }

  /** Those of them that were not read for this request. */
  get cachedTokens(): number {
    return cachedTokensOf(this.#read);
  }

  /** @internal */
  async begin(admission: Admission): Promise<void> {
    const { signal } = this.#stopping;
    const { owner, prompts, choices } = this.#request;
    let places: (() => void)[] = [];
    try {
      places = await traced("queue", () => admission.enter(prompts.length * choices, signal));
      this.#metrics.queueSeconds.observe((performance.now() - this.#asked) / 1000);
      const reading = await Promise.allSettled(prompts.map((prompt) => this.#reader.read(prompt, owner, signal)));
      signal.throwIfAborted();
      this.#read = reading.map(fulfilled);
      this.#metrics.promptTokens.inc(this.promptTokens);
      this.#metrics.cachedTokens.inc(this.cachedTokens);
      this.#open(places);
    } catch (error) {
      for (const leave of places) leave();
      this.#resolveEnded();
      throw this.#ending ? endings[this.#ending]() : error;
    }
  }

  /** Ends the texts where they are. Their streams end like those of texts that have reached their length. */
  stop(ending: Ending): void {
    this.#ending ??= ending;
    this.#stopping.abort();
    // Nobody may be reading: places are given back all the same.
    void this.end();
  }

  /** Gives back what the run holds. Texts that have not ended end where they are. */
  async end(): Promise<void> {
    if (!this.#stopping.signal.aborted) this.#stopping.abort();
    await Promise.all(this.#choices.map((choice) => choice.end()));
  }

  #open(places: readonly (() => void)[]): void {
    const { generation, choices } = this.#request;
    const sessions: Session[] = [];
    try {
      for (let i = 0; i < places.length; i++) sessions.push(this.#model.session(this.#readOf(i).snapshot));
      const { signal } = this.#stopping;
      this.#choices = sessions.map((session, index) => {
        const seed = generation.seed === undefined ? {} : { seed: (generation.seed + (index % choices)) % 2 ** 53 };
        const text = session.generate({ ...generation, ...seed, signal });
        const trace = new TextTrace(index, () => this.#model.scheduler.passes);
        return new TextChoice(index, session, text, this.#metrics, this.#asked, trace);
      });
      const ended = this.#choices.map(async (choice, index) => {
        choice.onText = (answer) => this.#keep(this.#readOf(index), choice, answer);
        await choice.ended;
        places[index]?.();
      });
      void Promise.all(ended).then(this.#resolveEnded);
    } catch (error) {
      for (const session of sessions) void session.dispose();
      throw error;
    }
  }

  /** The prompt of a choice. */
  #readOf(choice: number): ReadPrompt {
    return this.#read[Math.floor(choice / this.#request.choices)] as ReadPrompt;
  }

  async #keep(read: ReadPrompt, choice: TextChoice, answer: GenerationResult): Promise<void> {
    const snapshot = await choice.session.snapshot().catch(() => undefined); // it may have been ended from outside meanwhile
    if (!snapshot) return;
    choice.written = { before: read.snapshot, after: snapshot, text: answer.text, tokens: answer.tokens };
    const firstPosition = read.snapshot.position - read.chain.length;
    this.#reader.keep(read.chain, answer.tokens, snapshot, firstPosition);
  }
}

/** Tokens of prompts, and of the states that they say they begin with. */
export function tokensOf(prompts: readonly Prompt[]): number {
  return prompts.reduce((sum, { start, tokens }) => sum + (start?.snapshot.position ?? 0) + tokens.length, 0);
}

/** Tokens of prompts that were not read. */
export function cachedTokensOf(read: readonly ReadPrompt[]): number {
  return read.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0);
}

function fulfilled<T>(settled: PromiseSettledResult<T>): T {
  if (settled.status === "rejected") throw settled.reason;
  return settled.value;
}

function shuttingDown(): ApiError {
  return new ApiError(503, "the server is shutting down", { code: "shutting_down", retryAfter: 5 });
}
