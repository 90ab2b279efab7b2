// Carries out the batches of a folder from the first look at their lines to the files of answers, beside what else a server does.

import { RwkvError } from "../../errors.js";
import type { BatchDirectory } from "./batch-directory.js";
import { isThere } from "./batch-directory.js";
import { writeOutputs } from "./batch-outputs.js";
import { type BatchEnding, type BatchRecord, isFinal } from "./batch-record.js";
import { type BatchLock, type BatchWork, TryAgainError, WrongModelError } from "./batch-work.js";
import { checkInput, type Problem } from "./check-input.js";
import { AnotherBatchError } from "./output-file.js";
import { runBatch } from "./run-batch.js";

/** Milliseconds between two looks at whether a batch is to be cancelled or over, and between two notes of how far it is. */
const lookMilliseconds = 500;
/** Milliseconds between two looks at whether there are batches that nobody carries out. */
const tendMilliseconds = 2000;

/** What batches are carried out with. */
export interface BatchRunnerOptions {
  readonly directory: BatchDirectory;
  /** Who carries out their lines. */
  readonly work: BatchWork;
  /** What tells the answers from those of others. */
  readonly modelIdentity: () => Promise<string>;
  /** The name of the model. */
  readonly modelName: string;
  /** Bytes of a line, at most. */
  readonly maxBytes: number;
  readonly onEnding?: ((record: BatchEnding) => void) | undefined;
}

/** How a batch ends that nothing is wrong with. */
type Ending = "completed" | "cancelled" | "expired";

/** Carries out batches. */
export class BatchRunner {
  readonly #options: BatchRunnerOptions;
  readonly #closing = new AbortController();
  readonly #waiting: string[] = [];
  /** What was told of batches that could not be ended, which are tried again and again. */
  readonly #told = new Map<string, string>();
  readonly #working = new Set<Promise<void>>();
  #tending: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: BatchRunnerOptions) {
    this.#options = options;
  }

  /** Goes on with batches that have not ended. */
  async resume(): Promise<void> {
    const all = await this.#options.directory.list();
    for (const record of all.toReversed()) if (!isFinal(record)) this.add(record.id);
    if (this.#closing.signal.aborted) return;
    this.#timer = setInterval(() => {
      this.#tending ??= this.#tend()
        .catch(() => {}) // what cannot be read now is looked at again
        .finally(() => {
          this.#tending = undefined;
        });
    }, tendMilliseconds).unref();
  }

  /** Carries out a batch when there is a place for it. */
  add(id: string): void {
    this.#waiting.push(id);
    this.#begin();
  }

  /** Leaves batches where they are, to be gone on with. */
  async close(): Promise<void> {
    this.#closing.abort(new RwkvError("the server is shutting down"));
    clearInterval(this.#timer);
    await Promise.all([...this.#working, this.#tending]);
  }

  /** Begins with batches that wait, as many as may be carried out at once. */
  #begin(): void {
    while (this.#working.size < this.#options.work.batchesAtOnce && !this.#closing.signal.aborted) {
      const id = this.#waiting.shift();
      if (id === undefined) return;
      const one = this.#attempt(id)
        .catch((error) => this.#tellOnce(id, error)) // what was answered stays where it is
        .finally(() => {
          this.#working.delete(one);
          this.#begin();
        });
      this.#working.add(one);
    }
  }

  /** Takes what nobody carries out: what was left by a server that is gone, and what has ended while it waited. */
  async #tend(): Promise<void> {
    const { directory, modelName } = this.#options;
    for (const record of (await directory.list()).toReversed()) {
      if (this.#closing.signal.aborted) return;
      if (isFinal(record)) continue;
      if ((await this.#endingOf(record)) !== "completed")
        await this.#attempt(record.id).catch((error) => this.#tellOnce(record.id, error));
      // Servers of other models may have the same folder.
      else if (record.model === modelName && !this.#waiting.includes(record.id)) this.add(record.id);
    }
  }

  /** Carries out a batch, unless it has ended or another does: that one may end, so it is looked at again. */
  async #attempt(id: string): Promise<void> {
    const { directory, work } = this.#options;
    const lock = await work.lock(id);
    if (!lock) return;
    const left = AbortSignal.any([this.#closing.signal, lock.lost]);
    try {
      const record = await directory.read(id);
      if (record && !isFinal(record)) await this.#run(record, lock, left);
    } catch (error) {
      // Where this server ends, or another goes on with it, the batch is as it was.
      if (left.aborted) return;
      if (error instanceof TryAgainError) throw error;
      await this.#giveUp(id, error as Error, lock);
    } finally {
      await lock.unlock();
    }
  }

  /** How a batch would end now. */
  async #endingOf({ id, expires_at }: BatchRecord): Promise<Ending> {
    if (await this.#options.directory.isToBeCancelled(id)) return "cancelled";
    return expires_at * 1000 <= Date.now() ? "expired" : "completed";
  }

  async #run(record: BatchRecord, lock: BatchLock, left: AbortSignal): Promise<void> {
    const { directory } = this.#options;
    if (record.status === "validating" && !(await this.#validate(record))) return;
    const answers = directory.answersPath(record.id);
    const ending = (await isThere(answers)) ? "completed" : await this.#carryOut(record.id, lock, left);
    await this.#finish(record.id, ending, lock);
  }

  /** Changes what is kept of a batch. */
  async #note(id: string, change: Partial<BatchRecord>): Promise<BatchRecord> {
    const { directory } = this.#options;
    const record = await directory.read(id);
    if (!record) throw new RwkvError("the batch is not there any more");
    if (isFinal(record)) throw new RwkvError("another server has ended the batch");
    const changed = { ...record, ...change };
    await directory.write(changed);
    return changed;
  }

  async #fail(id: string, errors: readonly Problem[]): Promise<void> {
    const record = await this.#note(id, { status: "failed", failed_at: now(), errors: toldErrors(errors) });
    await this.#options.directory.tidy(id);
    this.#tell(record, { codes: [...new Set(errors.map(({ code }) => code))] });
  }

  /** Tells whoever runs the server. */
  #tell(record: BatchRecord, more: Pick<BatchEnding, "codes" | "error"> = {}): void {
    const { id, status, request_counts, created_at } = record;
    this.#told.delete(id);
    const ending = { batchId: id, status, ...request_counts, seconds: now() - created_at, ...more };
    setImmediate(() => this.#options.onEnding?.(ending)); // what it throws is none of the batch's errors
  }

  /** Tells of an error for which a batch is left as it is, and tried again. */
  async #tellOnce(id: string, error: unknown): Promise<void> {
    const message = String(error);
    const record = await this.#options.directory.read(id).catch(() => undefined);
    if (!record || this.#closing.signal.aborted || this.#told.get(id) === message) return;
    this.#tell(record, { error });
    this.#told.set(id, message);
  }

  /** Ends a batch that cannot be gone on with, whose client has the answers that are there. */
  async #giveUp(id: string, error: Error, lock: BatchLock): Promise<void> {
    await this.#options.work.noteOver(id).catch(() => {}); // else what was asked for is carried out for nobody
    // Messages name paths, which are none of the client's business.
    const message =
      error instanceof AnotherBatchError
        ? "the server has another model, or other files, than when the batch was begun"
        : error instanceof WrongModelError
          ? "a worker has another model than the server"
          : "the server could not go on with the batch";
    await this.#finish(id, "failed", lock, { code: "batch_failed", message, line: null }, error);
  }

  /** Looks at all lines before the first is carried out. @returns whether they are right */
  async #validate({ id, endpoint, input_file_id }: BatchRecord): Promise<boolean> {
    const { directory, maxBytes } = this.#options;
    const { total, problems } = await checkInput(directory.files.path(input_file_id), endpoint, maxBytes);
    if (problems.length > 0) {
      await this.#fail(id, problems);
      return false;
    }
    const request_counts = { total, completed: 0, failed: 0 };
    await this.#note(id, { status: "in_progress", in_progress_at: now(), request_counts });
    return true;
  }

  /**
   * @param left aborted when this server leaves it as it is
   * @returns how it ended
   */
  async #carryOut(id: string, lock: BatchLock, left: AbortSignal): Promise<Ending> {
    const { directory, work, modelIdentity, maxBytes } = this.#options;
    const record = await this.#note(id, {});
    const over = new AbortController();
    let ending: Ending = "completed";
    let counts = record.request_counts;
    const look = async () => {
      ending = await this.#endingOf(record);
      if (ending !== "completed") over.abort(new RwkvError(`the batch is ${ending}`));
    };
    await look();
    if (ending !== "completed") {
      await work.noteOver(id);
      return ending;
    }
    let looking: Promise<unknown> = Promise.resolve();
    const timer = setInterval(() => {
      // What cannot be noted now is noted at the end.
      looking = looking
        .then(look)
        .then(() => lock.check())
        .then(() => this.#note(id, { request_counts: counts }))
        .catch(() => {});
    }, lookMilliseconds);
    try {
      const model = await modelIdentity();
      const answers = work.answers({ id, owner: record.owner, model, over: over.signal, left });
      const { isComplete } = await runBatch({
        input: directory.files.path(record.input_file_id),
        output: directory.answersPath(id),
        model,
        answers: (lines, batch) => checked(answers(lines, batch), lock),
        maxBytes,
        stop: AbortSignal.any([over.signal, left]),
        onProgress: ({ lines, failed }) => {
          counts = { ...counts, completed: lines - failed, failed };
        },
      });
      if (isComplete) return "completed";
      left.throwIfAborted();
      return ending;
    } catch (error) {
      if (!over.signal.aborted || left.aborted) throw error;
      return ending;
    } finally {
      clearInterval(timer);
      await looking;
    }
  }

  /**
   * Makes the files of answers and of errors.
   *
   * @param problem what the client is told of a batch that has failed, and `error` whoever runs the server
   */
  async #finish(
    id: string,
    ending: Ending | "failed",
    lock: BatchLock,
    problem?: Problem,
    error?: Error,
  ): Promise<void> {
    const { directory, maxBytes } = this.#options;
    lock.check();
    const record = await this.#note(id, { status: "finalizing", finalizing_at: now() });
    const { output, errors, completed, failed } = await writeOutputs(directory, record, ending === "expired", maxBytes);
    const { total } = record.request_counts;
    lock.check();
    const ended = await this.#note(id, {
      status: ending,
      [`${ending}_at`]: now(),
      output_file_id: output,
      error_file_id: errors,
      ...(problem && { errors: toldErrors([problem]) }),
      request_counts: { total, completed, failed },
    });
    lock.check();
    await directory.tidy(id);
    this.#tell(ended, { ...(error && { error }) });
  }
}

/** Answers, for as long as nobody else may write them, too. */
async function* checked<T>(answers: AsyncIterable<T>, lock: BatchLock): AsyncGenerator<T, void, void> {
  for await (const some of answers) {
    lock.check();
    yield some;
  }
}

function toldErrors(errors: readonly Problem[]): NonNullable<BatchRecord["errors"]> {
  return { object: "list", data: errors.map((error) => ({ ...error, param: null })) };
}

function now(): number {
  return Math.floor(Date.now() / 1000);
}
