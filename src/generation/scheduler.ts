// The scheduler owns the runtime's passes. Its clients hand it work: tokens of a sequence to be run, with what is wanted of them. Each
// pass takes one row for every sequence that decodes, then fills up with pieces of prompts, oldest first, so that the weights are
// read once for all. What a sequence's rows give does not depend on which others are in the pass.

import type { PassResult, PassSegment, Runtime } from "../backends/backend.js";
import { BackendError, LimitError, StateError } from "../errors.js";
import { chooseToken, type TokenChoice } from "../sampling/choose-token.js";
import { inNextTurn } from "./next-turn.js";
import type { Sequence } from "./sequence.js";

/**
 * Rows of prompts in a pass in which others decode. A longer piece would read a prompt hardly faster, and make the others' tokens
 * wait longer; docs/performance.md has what was measured.
 */
const promptRowsBesideDecoding = 32;

/** Tokens of one sequence that are to be run. */
export interface Work {
  readonly sequence: Sequence;
  readonly tokens: Int32Array;
  /** After which of the tokens logits are wanted. */
  readonly logits: "none" | "last" | "all";
  /** How a token is to be sampled from the logits of the last one. */
  readonly choice?: TokenChoice;
  /** Called after each pass with the number of tokens that have been run. Nobody else has had the sequence since the pass. */
  readonly onRun?: (done: number) => void;
  /**
   * Called after that where the pass gives logits: with their rows, which are valid only until it returns, and the token that was
   * sampled, where a choice was given.
   */
  readonly onLogits?: (rows: Float32Array, token: number | undefined) => void;
}

/** What a model's scheduler is doing. */
export interface SchedulerStatistics {
  /** Sequences in the pass in progress. */
  readonly running: number;
  /** Requests that wait for a pass, or for an earlier one of the same sequence. */
  readonly waiting: number;
  /** Passes since the model was loaded. */
  readonly passes: number;
  /** Rows (tokens run) since the model was loaded. */
  readonly rows: number;
  /** Mean number of rows of a pass. */
  readonly rowsPerPass: number;
}

/** Work in the queue. */
interface Request extends Work {
  done: number;
  /** Why it ends before its next pass. */
  cancelled: { readonly reason: unknown } | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Exclusive access to a sequence's state, in the queue. */
interface Access {
  readonly sequence: Sequence;
  readonly use: () => void;
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
  /** In order of arrival. Entries of one sequence are carried out one after another. */
  #queue: (Request | Access)[] = [];
  /** Sequences in the pass in progress, and those that someone has exclusive access to. */
  readonly #busy = new Set<Sequence>();
  /** Requests in the pass in progress. */
  #running: ReadonlySet<Request> = new Set();
  #passes = 0;
  #rows = 0;
  #passInProgress = false;
  #turnRequested = false;
  #disposed = false;
  #idle: (() => void) | undefined;

  /** @param maxWaiting how many requests may wait at once */
  constructor(runtime: Runtime, vocabulary: number, maxWaiting: number) {
    this.#runtime = runtime;
    this.#vocabulary = vocabulary;
    this.#maxWaiting = maxWaiting;
  }

  get statistics(): SchedulerStatistics {
    return {
      running: this.#running.size,
      waiting: this.#queue.length - this.#running.size,
      passes: this.#passes,
      rows: this.#rows,
      rowsPerPass: this.#passes === 0 ? 0 : this.#rows / this.#passes,
    };
  }

  /**
   * Runs tokens, in as many passes as it takes.
   *
   * @throws LimitError when too many requests wait; RwkvError where a token is to be sampled from logits that are not numbers;
   *   what a callback throws; the reason for which it was cancelled
   */
  run(work: Work): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#checkUsable(work.sequence);
      if (work.tokens.length === 0) return resolve();
      if (this.#queue.length - this.#running.size >= this.#maxWaiting)
        throw new LimitError("waiting", this.#maxWaiting);
      this.#queue.push({ ...work, done: 0, cancelled: undefined, resolve, reject });
      this.#requestTurn();
    });
  }

  /** Ends all work on a sequence that is not done after the pass in progress: its promises reject with the reason. */
  cancel(sequence: Sequence, reason: unknown): void {
    this.#rejectWaiting((request) => (request.sequence === sequence ? { reason } : undefined));
    for (const request of this.#running) if (request.sequence === sequence) request.cancelled = { reason };
    this.#startAccesses();
  }

  /**
   * Calls `use` when all that was asked of the sequence before has been done, and lets nobody else have the sequence until it ends.
   *
   * @throws StateError when the sequence was disposed or a pass failed with it
   */
  access<T>(sequence: Sequence, use: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.checkAlive();
      this.#queue.push({
        sequence,
        use: () => {
          const using = (async () => {
            this.#checkUsable(sequence);
            return use();
          })();
          const end = () => {
            this.#busy.delete(sequence);
            this.#proceed();
          };
          // In this order: the next user of the sequence begins before the caller hears of this one.
          using.then(end, end);
          using.then(resolve, reject);
        },
      });
      this.#startAccesses();
    });
  }

  /** Rejects what waits with an error, and resolves when nothing is in progress any more. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#proceed();
    if (this.#busy.size > 0 || this.#passInProgress) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  /** Rejects those of the requests that wait for which there is a reason. */
  #rejectWaiting(reasonFor: (request: Request) => { readonly reason: unknown } | undefined): void {
    const rejections: (() => void)[] = [];
    this.#queue = this.#queue.filter((entry) => {
      const found = "use" in entry || this.#running.has(entry) ? undefined : reasonFor(entry);
      if (found && !("use" in entry)) rejections.push(() => entry.reject(found.reason));
      return !found;
    });
    for (const reject of rejections) reject();
  }

  /** @throws BackendError after dispose() */
  checkAlive(): void {
    if (this.#disposed) throw disposedError();
  }

  #checkUsable(sequence: Sequence): void {
    if (sequence.unusable) throw sequence.unusable;
    this.checkAlive();
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

  #proceed(): void {
    this.#rejectWaiting(({ sequence }) => {
      const reason = this.#disposed ? disposedError() : sequence.unusable;
      return reason && { reason };
    });
    this.#startAccesses();
    if (this.#queue.length > 0) this.#requestTurn();
    if (this.#busy.size === 0 && !this.#passInProgress) this.#idle?.();
  }

  /** Gives access to sequences of which nothing else is in progress or was asked before. */
  #startAccesses(): void {
    const taken = new Set(this.#busy);
    const ready: Access[] = [];
    this.#queue = this.#queue.filter((entry) => {
      const free = !taken.has(entry.sequence);
      taken.add(entry.sequence);
      if (!("use" in entry) || !free) return true;
      ready.push(entry);
      return false;
    });
    for (const { sequence } of ready) this.#busy.add(sequence);
    for (const { use } of ready) use();
  }

  #startPass(): void {
    if (this.#passInProgress) return;
    const pieces = this.#nextPieces();
    if (pieces.length === 0) return;
    this.#passInProgress = true;
    this.#running = new Set(pieces.map(({ request }) => request));
    this.#passes++;
    for (const { request, count } of pieces) {
      this.#busy.add(request.sequence);
      this.#rows += count;
    }
    // A runtime that throws before its first await must not stop the queue.
    const running = (async () => this.#runtime.run(pieces.map(({ segment }) => segment)))();
    running.then(
      (result) => this.#endPass(pieces, result),
      (error) => this.#failPass(pieces, error),
    );
  }

  /** The first request of each sequence: one row for those that have one left, then pieces of the others. */
  #nextPieces(): Piece[] {
    const taken = new Set(this.#busy);
    const ready: Request[] = [];
    for (const entry of this.#queue) {
      if (!taken.has(entry.sequence) && !("use" in entry)) ready.push(entry);
      taken.add(entry.sequence);
    }
    const { maxTokens } = this.#runtime;
    const decoding = ready.filter((request) => rowsLeft(request) === 1).slice(0, maxTokens);
    const prompts = ready.filter((request) => rowsLeft(request) > 1);
    const space = maxTokens - decoding.length;
    const shares = sharesOfPrompts(prompts, decoding.length > 0 ? Math.min(space, promptRowsBesideDecoding) : space);
    const pieces = decoding.map((request) => pieceOf(request, 1));
    prompts.forEach((request, i) => {
      const count = shares[i] as number;
      if (count > 0) pieces.push(pieceOf(request, count));
    });
    return pieces;
  }

  #endPass(pieces: readonly Piece[], result: PassResult): void {
    let row = 0;
    let choices = 0;
    const ended = new Set<Request>();
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
        if (request.done < request.tokens.length) {
          if (request.cancelled) throw request.cancelled.reason;
          continue;
        }
        ended.add(request);
        request.resolve();
      } catch (error) {
        ended.add(request);
        request.reject(error);
      }
    }
    this.#freePieces(pieces, ended);
  }

  /** A pass that failed leaves the states in it neither old nor new, so that they cannot be used any more. */
  #failPass(pieces: readonly Piece[], error: unknown): void {
    for (const { request } of pieces) {
      const message = `a pass failed while it used the state: ${error instanceof Error ? error.message : String(error)}`;
      request.sequence.unusable = new StateError(message, { cause: error });
      request.reject(error);
    }
    this.#freePieces(pieces, new Set(pieces.map(({ request }) => request)));
  }

  #freePieces(pieces: readonly Piece[], ended: ReadonlySet<Request | Access>): void {
    if (ended.size > 0) this.#queue = this.#queue.filter((entry) => !ended.has(entry));
    for (const { request } of pieces) this.#busy.delete(request.sequence);
    this.#passInProgress = false;
    this.#running = new Set();
    this.#proceed();
  }
}

function rowsLeft({ tokens, done }: Request): number {
  return tokens.length - done;
}

/**
 * How many rows each prompt gets. The oldest comes first, but takes at most half of the space while others wait, and so do they in
 * turn: however long a prompt is, short ones behind it begin at once.
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
  const { sequence, tokens, done, logits, choice } = request;
  const isLast = done + count === tokens.length;
  const wanted = logits === "last" && !isLast ? "none" : logits;
  return {
    request,
    count,
    rows: wanted === "all" ? count : wanted === "last" ? 1 : 0,
    segment: {
      state: sequence.runtimeState,
      tokens: tokens.subarray(done, done + count),
      logits: wanted,
      ...(choice && isLast && { choice }),
    },
  };
}

function disposedError(): BackendError {
  return new BackendError("the model was disposed");
}
