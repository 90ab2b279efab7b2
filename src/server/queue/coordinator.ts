// Has the lines of a batch carried out by workers on any machine: shards go into a queue, and their answers come back in order. What waits
// in the queue is bounded, so that Redis holds a part of a batch, however long it is.

import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { AnswersFor } from "../answers-for.js";
import { readBatchLine, writeBatchLine } from "../batches/batch-lines.js";
import { WrongModelError } from "../batches/batch-work.js";
import { inOrder } from "../batches/in-order.js";
import type { AnsweredLine } from "../batches/line-runner.js";
import type { Line } from "../batches/lines.js";
import type { BegunBatch } from "../batches/output-file.js";
import { type ShardData, type ShardResult, shardsOf } from "./shard.js";
import type { ShardQueue } from "./shard-queue.js";

/** How a batch is put into a queue. */
export interface CoordinatorOptions {
  readonly shardLines: number;
  /** Shards that are in the queue at once, and those that are there or whose answers wait for others, at most. Default 64 and 128. */
  readonly shards?: { readonly atOnce: number; readonly ahead: number };
  readonly maxBytes: number;
  readonly seed?: number | undefined;
  readonly maxTokens?: number | undefined;
  /** In whose name workers answer; by default their model is asked, whatever lines say. */
  readonly answersFor?: AnswersFor | undefined;
  /** What the answers must be of; by default of what the first one is. */
  readonly model?: string | undefined;
  /** Aborted when nothing more is waited for. What is in the queue stays there, and is found by who asks for the same again. */
  readonly stop?: AbortSignal | undefined;
  /** Says when the batch is over: what is done then is taken, and nothing of it is left in the queue. */
  readonly over?: { readonly batch: string; readonly signal: AbortSignal } | undefined;
}

const usualShards = { atOnce: 64, ahead: 128 };
/** Milliseconds that workers have to say what they have done when a batch is over. */
const overMilliseconds = 5000;

/** Answers, and the jobs that have them. */
interface ShardAnswers {
  readonly lines: readonly AnsweredLine[];
  readonly jobs: readonly string[];
}

/** A shard, or a part of one. */
interface Shard {
  readonly lines: readonly Line[];
  /** What tells the batch from any other. */
  readonly batch: string;
  /** The jobs that were asked for, with the lines of each. */
  readonly asked: Map<string, readonly Line[]>;
}

/** One batch that workers of a queue carry out. */
export class Coordinator {
  readonly #queue: ShardQueue;
  readonly #options: CoordinatorOptions;
  /** Aborted when answers are not waited for any more, for whichever reason. */
  readonly #stop: AbortSignal;
  /** Aborted at the first error, with which none of the other answers is wanted. */
  readonly #failing = new AbortController();
  /** The model of the first answer, in this run or those before it. */
  #model: string | undefined;
  /** The last shard that was suspected of ending workers. */
  #lastSuspect: Promise<unknown> = Promise.resolve();
  /** Aborted a while after the batch is over. */
  #patience: AbortSignal | undefined;

  constructor(queue: ShardQueue, options: CoordinatorOptions) {
    this.#queue = queue;
    this.#options = options;
    const { stop, over } = options;
    this.#stop = AbortSignal.any([this.#failing.signal, ...(over ? [over.signal] : []), ...(stop ? [stop] : [])]);
    for (const signal of [this.#stop, stop]) if (signal) setMaxListeners(0, signal); // each shard has some
  }

  /**
   * The answers to lines, in their order, those of a shard at once; those until then where it is stopped, and of a batch that is over what is
   * done.
   *
   * @param batch whose answers they are: what is in the queue of another is not taken for its own
   * @throws WrongModelError where workers have different models, or another than the batch was begun with; TryAgainError where Redis takes
   *   nothing at present
   */
  async *answers(lines: AsyncIterable<Line>, batch: BegunBatch): AsyncGenerator<readonly AnsweredLine[], void, void> {
    const { model, shardLines, shards = usualShards } = this.#options;
    this.#model = model ?? batch.answeredBy;
    const work = (shard: readonly Line[]) =>
      this.#answersOf(shard, batch.begun).catch((error) => {
        if (!this.#stop.aborted) this.#failing.abort(error);
        throw error;
      });
    try {
      for await (const { lines: answers, jobs } of inOrder(shardsOf(lines, shardLines), work, shards)) {
        if (this.#model !== undefined && batch.answeredBy === undefined) await batch.noteAnsweredBy(this.#model);
        yield answers;
        // They are written: until then the queue has them for whoever goes on.
        for (const jobId of jobs) await this.#remove(jobId);
      }
    } catch (error) {
      const { signal } = this.#failing;
      if (signal.aborted) throw signal.reason;
      if (!this.#stop.aborted) throw error;
    }
  }

  async #remove(jobId: string): Promise<void> {
    try {
      await this.#queue.remove(jobId, this.#isOver ? this.#untilGivenUp() : this.#stop);
    } catch (error) {
      if (!this.#isOver) throw error; // else other shards have answers yet
    }
  }

  /** Whether what is done is all that is wanted. */
  get #isOver(): boolean {
    const { stop, over } = this.#options;
    return over?.signal.aborted === true && !stop?.aborted;
  }

  /** Tells workers that the batch is over, once. @returns what is aborted when they are waited for no longer */
  #untilGivenUp(): AbortSignal {
    const { stop, over } = this.#options;
    if (!this.#patience) {
      const late = new AbortController();
      const end = () => late.abort();
      setTimeout(end, overMilliseconds).unref();
      stop?.addEventListener("abort", end);
      this.#patience = late.signal;
      setMaxListeners(0, this.#patience);
      if (over) void this.#queue.noteOver(over.batch, this.#patience).catch(() => {});
    }
    return this.#patience;
  }

  /** The answers to a shard, or to some of its lines where the batch is over meanwhile. */
  async #answersOf(lines: readonly Line[], batch: string): Promise<ShardAnswers> {
    const asked = new Map<string, readonly Line[]>();
    try {
      return await this.#allAnswers({ lines, batch, asked });
    } catch (error) {
      if (!this.#isOver) throw error;
    }
    const patience = this.#untilGivenUp();
    const found = await Promise.all(
      [...asked].map(async ([jobId, of]) => {
        const result = await this.#queue.takeOut(jobId, patience);
        return result && result.model === this.#model ? answersIn(result, of) : [];
      }),
    );
    return { lines: found.flat().sort((a, b) => a.line.number - b.line.number), jobs: [] };
  }

  /**
   * The answers to a shard. One that ends the processes that carry it out is halved until the line is found that does.
   *
   * @param isSuspect whether it may be one: those are in the queue one after the other, since a worker that is ended by one of them takes all
   *   that it has with it, and a line that fails alone has failed by itself
   */
  async #allAnswers(shard: Shard, isSuspect = false): Promise<ShardAnswers> {
    const { lines, batch, asked } = shard;
    const { maxBytes, seed, maxTokens, answersFor, over } = this.#options;
    const data: ShardData = {
      lines: lines.map(({ number, text }) => ({ number, text: text ?? null })),
      maxBytes,
      ...(seed !== undefined && { seed }),
      ...(maxTokens !== undefined && { maxTokens }),
      ...(answersFor && { answersFor }),
      ...(over && { batch: over.batch }),
    };
    const jobId = createHash("sha256")
      .update(JSON.stringify([batch, data]))
      .digest("hex")
      .slice(0, 40);
    asked.set(jobId, lines);
    let result = await (isSuspect ? this.#alone(jobId, data) : this.#carriedOut(jobId, data));
    // A worker may have been ended by a shard that was not suspected yet.
    if (typeof result === "string" && lines.length === 1) result = await this.#alone(jobId, data);
    if (typeof result !== "string") {
      this.#model ??= result.model;
      if (result.model !== this.#model) {
        // Whoever goes on has it carried out again, by the workers that are there then.
        await this.#queue.remove(jobId, this.#stop);
        throw new WrongModelError(
          `workers of the queue ${this.#queue.name} have different models, or another than the batch was begun with: give each its own ` +
            "--queue-name",
        );
      }
      return { lines: answersIn(result, lines), jobs: [jobId] };
    }
    asked.delete(jobId);
    if (lines.length > 1) {
      const half = Math.ceil(lines.length / 2);
      const first = await this.#allAnswers({ lines: lines.slice(0, half), batch, asked }, true);
      const second = await this.#allAnswers({ lines: lines.slice(half), batch, asked }, true);
      return { lines: [...first.lines, ...second.lines], jobs: [...first.jobs, ...second.jobs] };
    }
    const [line] = lines as [Line];
    const { form, id } = readBatchLine(line, maxBytes);
    const message = `line ${line.number}: workers failed on it: ${result}`;
    const problem = { kind: "problem", form, id, code: "line_failed", message } as const;
    const answer = { line, ...writeBatchLine(line.number, problem, undefined), promptTokens: 0, generatedTokens: 0 };
    return { lines: [answer], jobs: [] };
  }

  /** The same as `#carriedOut`, after all that were suspected before. */
  #alone(jobId: string, data: ShardData): Promise<ShardResult | string> {
    const result = this.#lastSuspect.then(() => this.#carriedOut(jobId, data));
    this.#lastSuspect = result.catch(() => {});
    return result;
  }

  /** @returns why it failed, where it did every time */
  #carriedOut(jobId: string, data: ShardData): Promise<ShardResult | string> {
    return this.#queue.carriedOut(jobId, data, this.#stop);
  }
}

/** The answers of a result, with the lines that they answer. */
function answersIn({ answers }: ShardResult, lines: readonly Line[]): AnsweredLine[] {
  return answers.slice(0, lines.length).map((answer, i) => ({ line: lines[i] as Line, ...answer }));
}
