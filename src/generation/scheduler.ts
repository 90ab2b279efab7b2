// The scheduler owns the runtime's passes. Its clients hand it work: tokens of a sequence to be run, with what is
// wanted of them. Each pass takes one row for every sequence that decodes, then fills up with pieces of prompts,
// oldest first, so that the weights are read once for all. What a sequence's rows give does not depend on which
// others are in the pass.

import type { PassResult, PassSegment, Runtime } from "../backends/backend.js";
import { BackendError, LimitError, StateError } from "../errors.js";
import { inNextTurn } from "../next-event-loop-turn.js";
import { chooseToken, type TokenChoice } from "../sampling/choose-token.js";
import type { Access, Request, Sequence, Work } from "./sequence.js";

/**
 * Rows of prompts in a pass in which others decode. A longer piece would read a prompt hardly faster, and make the
 * others' tokens wait longer; docs/performance.md has what was measured.
 */
const promptRowsBesideDecoding = 32;

const noTokens = new Int32Array(0);
const noLogits = new Float32Array(0);

/** A snapshot of a model's scheduler. */
export interface SchedulerStatistics {
  /** The number of sequences in the pass in progress. */
  readonly running: number;
  /** The number of requests that wait for their first pass. */
  readonly waiting: number;
  /** The number of passes since the model was loaded. */
  readonly passes: number;
  /** The number of rows (tokens run) since the model was loaded. */
  readonly rows: number;
  /** The mean number of rows in a pass. */
  readonly rowsPerPass: number;
}

/** A piece of a request in a pass. */
interface Piece {
  readonly request: Request;
  readonly count: number;
  readonly segment: PassSegment;
  readonly rows: number;
}

export class Scheduler {
  readonly #runtime: Runtime;
  readonly #vocabulary: number;
  readonly #maxWaiting: number;
  /** Sequences that are busy or have entries in their queues. */
  readonly #active = new Set<Sequence>();
  /** Requests at the head of their sequence's queue, the oldest first, including those in the pass in progress. */
  readonly #ready = new Set<Request>();
  #running: readonly Piece[] = [];
  #waiting = 0;
  #passes = 0;
  #rows = 0;
  #passInProgress = false;
  #passScheduled = false;
  #disposed = false;
  #idle: (() => void) | undefined;

  /** @param maxWaiting how many requests may wait for their first pass */
  constructor(runtime: Runtime, vocabulary: number, maxWaiting: number) {
    this.#runtime = runtime;
    this.#vocabulary = vocabulary;
    this.#maxWaiting = maxWaiting;
  }

  get statistics(): SchedulerStatistics {
    return {
      running: this.#running.length,
      waiting: this.#waiting,
      passes: this.#passes,
      rows: this.#rows,
      rowsPerPass: this.#passes === 0 ? 0 : this.#rows / this.#passes,
    };
  }

  /** Whether tokens may be chosen ahead: work that names `ahead` is of use. */
  get canGoAhead(): boolean {
    return this.#runtime.runAhead !== undefined;
  }

  /** Runs tokens in as many passes as they need. @throws as `runAll` */
  async run(work: Work): Promise<void> {
    await this.runAll([work])[0];
  }

  /**
   * Runs the tokens of several sequences. Either all of the work is accepted or none.
   *
   * @returns a promise for each. It rejects with an RwkvError when a token is to be sampled from logits that are not
   *   numbers, with what a callback throws, or with the reason for which the work was cancelled
   * @throws LimitError when too many requests wait; StateError where a sequence cannot be used
   */
  runAll(works: readonly Work[]): Promise<void>[] {
    for (const { sequence } of works) this.#checkUsable(sequence);
    const newRequests = works.filter(({ continues }) => !continues).length;
    if (newRequests > 0 && this.#waiting + newRequests > this.#maxWaiting) {
      throw new LimitError("waiting", this.#maxWaiting);
    }
    return works.map(
      (work) =>
        new Promise((resolve, reject) => {
          const waits = !work.continues;
          if (waits) this.#waiting++;
          this.#enqueue(work.sequence, { work, run: noTokens, done: 0, waits, cancelled: undefined, resolve, reject });
        }),
    );
  }

  /** Ends all work on a sequence that is unfinished after the pass in progress; its promises reject with the reason. */
  cancel(sequence: Sequence, reason: unknown): void {
    for (const { request } of this.#running) if (request.work.sequence === sequence) request.cancelled = { reason };
    this.#rejectWaiting(sequence, reason);
    this.#advance(sequence);
  }

  /**
   * Calls `use` after all earlier work on the sequence, and starts no other work on it until `use` has ended.
   *
   * @throws StateError when the sequence was disposed of or a pass failed while it used it
   */
  access<T>(sequence: Sequence, use: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#checkUsable(sequence);
      const begin = () => {
        const using = (async () => {
          if (sequence.unusable) throw sequence.unusable;
          this.checkAlive();
          return use();
        })();
        const end = () => {
          sequence.busy = false;
          this.#advance(sequence);
        };
        // In this order, so that the next user of the sequence begins before the caller continues.
        using.then(end, end);
        using.then(resolve, reject);
      };
      this.#enqueue(sequence, { use: begin });
    });
  }

  /** Rejects waiting requests with a BackendError, and resolves when nothing is in progress any more. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    for (const sequence of [...this.#active]) {
      this.#rejectWaiting(sequence, disposedError());
      this.#advance(sequence);
    }
    if (this.#active.size > 0 || this.#passInProgress) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  /** @throws BackendError after dispose() */
  checkAlive(): void {
    if (this.#disposed) throw disposedError();
  }

  #checkUsable(sequence: Sequence): void {
    this.checkAlive();
    const error = sequence.unusable ?? sequence.ending;
    if (error) throw error;
  }

  #enqueue(sequence: Sequence, entry: Request | Access): void {
    this.#active.add(sequence);
    sequence.queue.push(entry);
    if (sequence.queue.length === 1) this.#advance(sequence);
  }

  /** Starts the entry at the head of a sequence's queue, unless the sequence is busy. */
  #advance(sequence: Sequence): void {
    if (sequence.busy) return;
    if (this.#disposed) this.#rejectWaiting(sequence, disposedError());
    else if (sequence.unusable) this.#rejectWaiting(sequence, sequence.unusable);
    const first = sequence.queue[0];
    if (!first) {
      this.#active.delete(sequence);
      if (this.#active.size === 0 && !this.#passInProgress) this.#idle?.();
    } else if ("use" in first) {
      sequence.queue.shift();
      sequence.busy = true;
      first.use();
    } else if (!this.#ready.has(first)) {
      const { tokens } = first.work;
      first.run = typeof tokens === "function" ? tokens() : tokens;
      if (first.run.length > 0) {
        this.#ready.add(first);
        this.#schedulePass();
        return;
      }
      this.#dequeue(first);
      first.resolve();
      this.#advance(sequence);
    } else this.#schedulePass();
  }

  /** Removes a request from its queue. */
  #dequeue(request: Request): void {
    this.#stopWaiting(request);
    this.#ready.delete(request);
    const { queue } = request.work.sequence;
    if (queue[0] === request) queue.shift();
    else queue.splice(queue.indexOf(request), 1);
  }

  /** Notes that a request no longer waits for its first pass. */
  #stopWaiting(request: Request): void {
    if (request.waits) this.#waiting--;
    request.waits = false;
  }

  /** Rejects the requests of a sequence that are not in the pass in progress. */
  #rejectWaiting(sequence: Sequence, reason: unknown): void {
    const isRunning = (request: Request) => sequence.busy && this.#ready.has(request);
    const rejected = sequence.queue.filter((entry): entry is Request => !("use" in entry) && !isRunning(entry));
    for (const request of rejected) {
      this.#dequeue(request);
      request.reject(reason);
    }
  }

  /**
   * Starts a pass in the next turn of the event loop. Until then, clients that received a token from the last pass
   * can ask for the next one, and so share the pass.
   */
  #schedulePass(): void {
    if (this.#passScheduled || this.#passInProgress) return;
    this.#passScheduled = true;
    inNextTurn(() => {
      this.#passScheduled = false;
      this.#startPass();
    });
  }

  #startPass(): void {
    if (this.#passInProgress) return;
    const pieces = this.#nextPieces();
    if (pieces.length === 0) return;
    this.#passInProgress = true;
    this.#running = pieces;
    this.#passes++;
    for (const { request, count } of pieces) {
      request.work.sequence.busy = true;
      this.#stopWaiting(request);
      this.#rows += count;
    }
    // An async function, so that a runtime that throws before its first await does not stop the queue.
    const running = (async () => this.#runPieces(pieces))();
    running.then(
      (result) => this.#endPass(pieces, result),
      (error) => this.#failPass(pieces, error),
    );
  }

  /** Where one sequence decodes and nobody waits, as many of its tokens as it asks for. */
  async #runPieces(pieces: readonly Piece[]): Promise<PassResult> {
    const [{ request, segment }] = pieces as [Piece];
    const { choice, state, tokens } = segment;
    const { ahead } = request.work;
    const isAlone = this.#ready.size === 1 && tokens.length === 1;
    if (!isAlone || !choice || !ahead || !this.#runtime.runAhead) {
      return this.#runtime.run(pieces.map((piece) => piece.segment));
    }
    const chosen = await this.#runtime.runAhead(state, tokens[0] as number, [choice, ...ahead]);
    this.#passes += ahead.length;
    this.#rows += ahead.length;
    return { logits: new Float32Array(0), tokens: chosen };
  }

  /** One row for each sequence with a single token to run, then pieces of the others. */
  #nextPieces(): Piece[] {
    const decoding: Request[] = [];
    const prompts: Request[] = [];
    let promptRows = 0;
    for (const request of this.#ready) {
      if (remainingRows(request) === 1) decoding.push(request);
      else {
        prompts.push(request);
        promptRows += remainingRows(request);
      }
    }
    // Prompts are read however many sequences decode.
    const { maxTokens } = this.#runtime;
    const space = decoding.length === 0 ? maxTokens : Math.min(promptRowsBesideDecoding, promptRows);
    const pieces = decoding.slice(0, maxTokens - space).map((request) => pieceOf(request, 1));
    const shares = rowsOfPrompts(prompts, decoding.length === 0 ? maxTokens : space);
    prompts.forEach((request, i) => {
      const count = shares[i] as number;
      if (count > 0) pieces.push(pieceOf(request, count));
    });
    return pieces;
  }

  #endPass(pieces: readonly Piece[], result: PassResult): void {
    let row = 0;
    let choices = 0;
    for (const { request, count, segment, rows } of pieces) {
      const { work } = request;
      const { choice } = segment;
      const chosen = choice ? result.tokens[choices++] : undefined;
      const first = row;
      row += rows;
      request.done += count;
      try {
        work.onRun?.(request.done);
        // Nobody looks at them, but where no token could be chosen. Read anew for each piece, because callbacks may create states, which
        // may move the memory.
        const isUnseen = segment.choiceOnly === true && chosen !== -1;
        const own = isUnseen ? noLogits : result.logits.subarray(first * this.#vocabulary, row * this.#vocabulary);
        // The plain form throws an error that says what is wrong with logits that are not numbers.
        const token = choice && chosen === -1 ? chooseToken(own, choice) : chosen;
        if (rows > 0) work.onLogits?.(own, token);
        // What the backend went on to; then the sequence was alone in the pass.
        for (let i = 1; work.ahead && pieces.length === 1 && i < result.tokens.length; i++) {
          const next = result.tokens[i] as number;
          work.onLogits?.(own, next === -1 ? chooseToken(own, choice as TokenChoice) : next);
        }
        if (remainingRows(request) > 0) {
          if (request.cancelled) throw request.cancelled.reason;
          continue;
        }
        this.#dequeue(request);
        request.resolve();
      } catch (error) {
        this.#dequeue(request);
        request.reject(error);
      }
    }
    this.#finishPieces(pieces);
  }

  /** A failed pass leaves the states in it neither old nor new, so they cannot be used any more. */
  #failPass(pieces: readonly Piece[], error: unknown): void {
    for (const { request } of pieces) {
      const message = `a pass failed while it used the state: ${error instanceof Error ? error.message : String(error)}`;
      request.work.sequence.unusable = new StateError(message, { cause: error });
      this.#dequeue(request);
      request.reject(error);
    }
    this.#finishPieces(pieces);
  }

  #finishPieces(pieces: readonly Piece[]): void {
    this.#passInProgress = false;
    this.#running = [];
    for (const { request } of pieces) request.work.sequence.busy = false;
    for (const { request } of pieces) this.#advance(request.work.sequence);
    if (this.#ready.size > 0) this.#schedulePass();
    if (this.#active.size === 0) this.#idle?.();
  }
}

function remainingRows({ run, done }: Request): number {
  return run.length - done;
}

/**
 * Decides how many rows each prompt gets. The oldest comes first, but takes at most half of the remaining rows while
 * others wait, and so on, so that short prompts start soon however long the ones before them are.
 */
function rowsOfPrompts(prompts: readonly Request[], rows: number): number[] {
  let space = rows;
  const shares = prompts.map((request, i) => {
    const share = Math.min(remainingRows(request), i === prompts.length - 1 ? space : Math.ceil(space / 2));
    space -= share;
    return share;
  });
  return prompts.map((request, i) => {
    const share = shares[i] as number;
    const more = Math.min(remainingRows(request) - share, space);
    space -= more;
    return share + more;
  });
}

function pieceOf(request: Request, count: number): Piece {
  const { run, done } = request;
  const { sequence, logits, choice, choiceOnly } = request.work;
  const isLast = done + count === run.length;
  const wanted = logits === "last" && !isLast ? "none" : logits;
  return {
    request,
    count,
    rows: wanted === "all" ? count : wanted === "last" ? 1 : 0,
    segment: {
      state: sequence.runtimeState,
      tokens: count === run.length ? run : run.subarray(done, done + count),
      logits: wanted,
      choice: isLast ? choice : undefined,
      choiceOnly: isLast && choiceOnly === true,
    },
  };
}

function disposedError(): BackendError {
  return new BackendError("the model was disposed");
}
