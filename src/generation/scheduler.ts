// The scheduler owns the runtime's passes. Its clients hand it work: tokens of a sequence to be run, with what is wanted of them. Each
// pass takes one row for every sequence that decodes, then fills up with pieces of prompts, oldest first, so that the weights are
// read once for all. What a sequence's rows give does not depend on which others are in the pass.

import type { PassResult, PassSegment, Runtime } from "../backends/backend.js";
import { BackendError, LimitError, StateError } from "../errors.js";
import { chooseToken } from "../sampling/choose-token.js";
import { inNextTurn } from "./next-turn.js";
import type { Access, Request, Sequence, Work } from "./sequence.js";

/**
 * Rows of prompts in a pass in which others decode. A longer piece would read a prompt hardly faster, and make the others' tokens
 * wait longer; docs/performance.md has what was measured.
 */
const promptRowsBesideDecoding = 32;

/** What a model's scheduler is doing. */
export interface SchedulerStatistics {
  /** Sequences in the pass in progress. */
  readonly running: number;
  /** Requests that wait for their first pass. */
  readonly waiting: number;
  /** Passes since the model was loaded. */
  readonly passes: number;
  /** Rows (tokens run) since the model was loaded. */
  readonly rows: number;
  /** Mean number of rows of a pass. */
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
  /** Sequences that are busy, or of which something waits. */
  readonly #active = new Set<Sequence>();
  /** Requests that come first in their sequence's queue, oldest first; those in the pass in progress among them. */
  readonly #ready = new Set<Request>();
  #running: readonly Piece[] = [];
  #waiting = 0;
  #passes = 0;
  #rows = 0;
  #passInProgress = false;
  #turnRequested = false;
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

  /** Runs tokens, in as many passes as it takes. @throws as `runAll` */
  async run(work: Work): Promise<void> {
    await this.runAll([work])[0];
  }

  /**
   * Runs the tokens of several sequences. Either all are taken or none.
   *
   * @returns a promise for each. It rejects where a token is to be sampled from logits that are not numbers (RwkvError), with what a
   *   callback throws, or with the reason for which the work was cancelled
   * @throws LimitError when too many requests wait; StateError where a sequence cannot be used
   */
  runAll(works: readonly Work[]): Promise<void>[] {
    for (const { sequence } of works) this.#checkUsable(sequence);
    const newcomers = works.filter(({ continues }) => !continues).length;
    if (newcomers > 0 && this.#waiting + newcomers > this.#maxWaiting) {
      throw new LimitError("waiting", this.#maxWaiting);
    }
    return works.map(
      (work) =>
        new Promise((resolve, reject) => {
          const waits = !work.continues;
          if (waits) this.#waiting++;
          const run = new Int32Array(0);
          this.#enqueue(work.sequence, { ...work, run, done: 0, waits, cancelled: undefined, resolve, reject });
        }),
    );
  }

  /** Ends all work on a sequence that is not done after the pass in progress: its promises reject with the reason. */
  cancel(sequence: Sequence, reason: unknown): void {
    for (const { request } of this.#running) if (request.sequence === sequence) request.cancelled = { reason };
    this.#rejectWaiting(sequence, reason);
    this.#advance(sequence);
  }

  /**
   * Calls `use` when all that was asked of the sequence before has been done, and lets nobody else have the sequence until it ends.
   *
   * @throws StateError when the sequence was disposed or a pass failed with it
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
        // In this order: the next user of the sequence begins before the caller hears of this one.
        using.then(end, end);
        using.then(resolve, reject);
      };
      this.#enqueue(sequence, { use: begin });
    });
  }

  /** Rejects what waits with an error, and resolves when nothing is in progress any more. */
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

  /** Lets begin what comes first in a sequence's queue, if nothing else of the sequence is in progress. */
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
      first.run = typeof first.tokens === "function" ? first.tokens() : first.tokens;
      if (first.run.length > 0) {
        this.#ready.add(first);
        this.#requestTurn();
        return;
      }
      this.#leave(first);
      first.resolve();
      this.#advance(sequence);
    } else this.#requestTurn();
  }

  /** Takes a request out of its queue. */
  #leave(request: Request): void {
    this.#begun(request);
    this.#ready.delete(request);
    const { queue } = request.sequence;
    queue.splice(queue.indexOf(request), 1);
  }

  /** A request no longer waits for its first pass. */
  #begun(request: Request): void {
    if (request.waits) this.#waiting--;
    request.waits = false;
  }

  /** Rejects the requests of a sequence that are not in the pass in progress. */
  #rejectWaiting(sequence: Sequence, reason: unknown): void {
    const isRunning = (request: Request) => sequence.busy && this.#ready.has(request);
    const rejected = sequence.queue.filter((entry): entry is Request => !("use" in entry) && !isRunning(entry));
    for (const request of rejected) {
      this.#leave(request);
      request.reject(reason);
    }
  }

  /**
   * Passes begin in the next turn of the event loop: those that a pass gave a token can ask for the next one until then, and share
   * the pass.
   */
  #requestTurn(): void {
    if (this.#turnRequested || this.#passInProgress) return;
    this.#turnRequested = true;
    inNextTurn(() => {
      this.#turnRequested = false;
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
      request.sequence.busy = true;
      this.#begun(request);
      this.#rows += count;
    }
    // A runtime that throws before its first await must not stop the queue.
    const running = (async () => this.#runtime.run(pieces.map(({ segment }) => segment)))();
    running.then(
      (result) => this.#endPass(pieces, result),
      (error) => this.#failPass(pieces, error),
    );
  }

  /** One row for each sequence that has one left to run, then pieces of the others. */
  #nextPieces(): Piece[] {
    const decoding: Request[] = [];
    const prompts: Request[] = [];
    let promptRows = 0;
    for (const request of this.#ready) {
      if (rowsLeft(request) === 1) decoding.push(request);
      else {
        prompts.push(request);
        promptRows += rowsLeft(request);
      }
    }
    // However many decode, prompts are read too.
    const { maxTokens } = this.#runtime;
    const space = decoding.length === 0 ? maxTokens : Math.min(promptRowsBesideDecoding, promptRows);
    const pieces = decoding.slice(0, maxTokens - space).map((request) => pieceOf(request, 1));
    const shares = sharesOfPrompts(prompts, decoding.length === 0 ? maxTokens : space);
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
      const choice = segment.choice ? (result.tokens[choices++] as number) : undefined;
      // Asked for anew, because callbacks may create states.
      const own = result.logits.subarray(row * this.#vocabulary, (row + rows) * this.#vocabulary);
      row += rows;
      request.done += count;
      try {
        request.onRun?.(request.done);
        // Where logits are not numbers the plain form finds out what is wrong, and says so.
        const token = segment.choice && choice === -1 ? chooseToken(own, segment.choice) : choice;
        if (rows > 0) request.onLogits?.(own, token);
        if (rowsLeft(request) > 0) {
          if (request.cancelled) throw request.cancelled.reason;
          continue;
        }
        this.#leave(request);
        request.resolve();
      } catch (error) {
        this.#leave(request);
        request.reject(error);
      }
    }
    this.#freePieces(pieces);
  }

  /** A pass that failed leaves the states in it neither old nor new, so that they cannot be used any more. */
  #failPass(pieces: readonly Piece[], error: unknown): void {
    for (const { request } of pieces) {
      const message = `a pass failed while it used the state: ${error instanceof Error ? error.message : String(error)}`;
      request.sequence.unusable = new StateError(message, { cause: error });
      this.#leave(request);
      request.reject(error);
    }
    this.#freePieces(pieces);
  }

  #freePieces(pieces: readonly Piece[]): void {
    this.#passInProgress = false;
    this.#running = [];
    for (const { request } of pieces) request.sequence.busy = false;
    for (const { request } of pieces) this.#advance(request.sequence);
    if (this.#ready.size > 0) this.#requestTurn();
    if (this.#active.size === 0) this.#idle?.();
  }
}

function rowsLeft({ run, done }: Request): number {
  return run.length - done;
}

/**
 * How many rows each prompt gets. The oldest comes first, but takes at most half of the space while others wait, and so do they in
 * turn: however long a prompt is, short ones behind it begin soon.
 */
function sharesOfPrompts(prompts: readonly Request[], rows: number): number[] {
  let space = rows;
  const shares = prompts.map((request, i) => {
    const share = Math.min(rowsLeft(request), i === prompts.length - 1 ? space : Math.ceil(space / 2));
    space -= share;
    return share;
  });
  return prompts.map((request, i) => {
    const share = shares[i] as number;
    const more = Math.min(rowsLeft(request) - share, space);
    space -= more;
    return share + more;
  });
}

function pieceOf(request: Request, count: number): Piece {
  const { sequence, run, done, logits, choice } = request;
  const isLast = done + count === run.length;
  const wanted = logits === "last" && !isLast ? "none" : logits;
  return {
    request,
    count,
    rows: wanted === "all" ? count : wanted === "last" ? 1 : 0,
    segment: {
      state: sequence.runtimeState,
      tokens: run.subarray(done, done + count),
      logits: wanted,
      ...(choice && isLast && { choice }),
    },
  };
}

function disposedError(): BackendError {
  return new BackendError("the model was disposed");
}
