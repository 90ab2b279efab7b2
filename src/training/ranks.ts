// The ranks of a run: processes that train one model together, started by mpirun. What they tell each other goes through here; a
// process that was started alone is a rank without others, for whom all of it is nothing to do.
//
// Every function that returns a promise must be called by all ranks, in the same order.

import { BackendError, TrainingError } from "../errors.js";
import { InterruptedError } from "../interruptible.js";
import { launchedRanks, localRank } from "./launched-ranks.js";
import { loadMpi, type MpiLibrary, mpiCompiler } from "./mpi-library.js";

/** All processes of a run, as one of them sees them. */
export interface Ranks {
  /** The number of this process, from 0. The first one writes the run's folder. */
  readonly rank: number;
  /** How many there are. */
  readonly size: number;
  /** Adds up arrays over all ranks, in place. */
  sum(arrays: readonly Float32Array[]): Promise<void>;
  /** Adds up numbers over all ranks, each with those at its place. */
  sumNumbers(numbers: readonly number[]): Promise<number[]>;
  /** Copies the bytes of one rank into those of all others, which are as many. */
  broadcast(bytes: Uint8Array, from: number): Promise<void>;
  /** Ends the processes of all ranks, this one too: for an error that the others do not know of. */
  abort(): void;
}

/** An error of another rank, which tells of it. Whoever reports errors leaves this one to that rank. */
export class OtherRankError extends TrainingError {
  override name = "OtherRankError";
}

/** What one process alone is. */
const alone: Ranks = {
  rank: 0,
  size: 1,
  async sum() {},
  sumNumbers: async (numbers) => [...numbers],
  async broadcast() {},
  abort() {},
};

let joining: Promise<Ranks> | undefined;

/**
 * Joins the ranks that this process was started with; calls share one group. It is left when the process ends by itself.
 *
 * @throws BackendError where this process was started with others and MPI cannot be called here
 */
export function joinRanks(onNotice: (message: string) => void = () => {}): Promise<Ranks> {
  joining ??= join(onNotice);
  return joining;
}

async function join(onNotice: (message: string) => void): Promise<Ranks> {
  const launched = launchedRanks();
  if (launched === undefined || launched === 1) return alone;
  let mpi: MpiLibrary;
  try {
    mpi = await loadMpi(localRank() === 0 ? onNotice : () => {});
  } catch (error) {
    // What one rank of a machine lacks they all lack.
    if (!(error instanceof BackendError) || localRank() === 0) throw error;
    throw new OtherRankError(error.message, { cause: error });
  }
  await called(mpi.join());
  if (mpi.size() !== launched) {
    throw new BackendError(
      `expected the ${launched} ranks that were started, found ${mpi.size()} by the MPI of ${mpiCompiler()}: it is not the one whose ` +
        "mpirun started this; name that one's compiler by the variable MPICC",
    );
  }
  process.once("beforeExit", () => void mpi.leave().catch(() => {}));
  return {
    rank: mpi.rank(),
    size: mpi.size(),
    sum: (arrays) => called(mpi.sumFloats(arrays)),
    async sumNumbers(numbers) {
      const sums = Float64Array.from(numbers);
      await called(mpi.sumDoubles(sums));
      return [...sums];
    },
    async broadcast(bytes, from) {
      if (bytes.length > 0) await called(mpi.broadcast(bytes, from));
    },
    abort: () => mpi.abort(),
  };
}

async function called(promise: Promise<void>): Promise<void> {
  try {
    await promise;
  } catch (cause) {
    throw new BackendError(`MPI: ${(cause as Error).message}`, { cause });
  }
}

/** Whether something is true of any rank. */
export async function ofAnyRank(ranks: Ranks, isTrue: boolean): Promise<boolean> {
  const [count = 0] = await ranks.sumNumbers([isTrue ? 1 : 0]);
  return count > 0;
}

/** Text of the first rank, on all of them. */
async function sharedText(ranks: Ranks, text: string, from: number): Promise<string> {
  if (ranks.size === 1) return text;
  const own = ranks.rank === from ? new TextEncoder().encode(text) : new Uint8Array();
  const [length = 0] = await ranks.sumNumbers([own.length]);
  const bytes = ranks.rank === from ? own : new Uint8Array(length);
  await ranks.broadcast(bytes, from);
  return new TextDecoder().decode(bytes);
}

/** A value of the first rank, which JSON can hold, on all of them. What others give does not matter. */
export async function shared<Value>(ranks: Ranks, value: Value): Promise<Value> {
  if (ranks.size === 1) return value;
  const own = ranks.rank === 0 ? JSON.stringify({ value }) : "";
  return (JSON.parse(await sharedText(ranks, own, 0)) as { value: Value }).value;
}

/** Errors that all ranks know of. */
const known = new WeakSet<object>();

/** Whether all ranks know of an error. */
export function isKnownToAll(error: unknown): boolean {
  return error instanceof OtherRankError || (typeof error === "object" && error !== null && known.has(error));
}

/**
 * Does work of each rank, which asks nothing of the others. Where it fails on any rank it fails on all: on the first that failed with
 * its error, on the others with an `OtherRankError`. Where it is interrupted on any, it is on all.
 */
export async function agreed<Result>(ranks: Ranks, work: () => Result | Promise<Result>): Promise<Result> {
  if (ranks.size === 1) return work();
  let result: Result | undefined;
  let failure: { readonly error: unknown } | undefined;
  try {
    result = await work();
  } catch (error) {
    failure = { error };
  }
  const isInterrupted = failure?.error instanceof InterruptedError;
  const failed = new Array<number>(ranks.size).fill(0);
  if (failure && !isInterrupted) failed[ranks.rank] = 1;
  const [interrupted = 0, ...failures] = await ranks.sumNumbers([isInterrupted ? 1 : 0, ...failed]);
  const first = failures.findIndex((count) => count > 0);
  if (first >= 0) throw await failureOf(ranks, first, failure?.error);
  if (interrupted > 0) throw new InterruptedError("interrupted");
  return result as Result;
}

/** The error that all ranks end with, where it is that of one of them. */
async function failureOf(ranks: Ranks, first: number, own: unknown): Promise<unknown> {
  const message = own instanceof Error ? own.message : String(own);
  const told = await sharedText(ranks, message, first);
  const error = ranks.rank === first ? own : new OtherRankError(`rank ${first}: ${told}`);
  if (typeof error === "object" && error !== null) known.add(error);
  return error;
}

/** An error that all ranks have found by themselves, so that the first reports it alone. */
export function foundByAll(ranks: Ranks, error: Error): Error {
  known.add(error);
  return ranks.rank === 0 ? error : new OtherRankError(error.message, { cause: error });
}
