// The connection to a Redis that may be slow, full, restarted, hang, or be gone at any moment. Every question has a time within which it
// is answered; one that is not breaks the link, and nobody asks any more until a connection that was made aside has answered. So a Redis
// that hangs costs the requests of one moment that time, once, and all others nothing.

import { RwkvError } from "../../../errors.js";
import { isReply, type Shape } from "./answers.js";
import type { RedisClient } from "./library.js";

/** Redis cannot be asked at present. */
export class OutOfReachError extends RwkvError {
  override name = "OutOfReachError";
}

/** Two connections, so that a small question never waits behind a state that is being written. */
interface Clients {
  readonly read: RedisClient;
  readonly write: RedisClient;
}

/** What is told of a link. */
export interface LinkEvents {
  onUp(): void;
  onDown(why: Error): void;
}

/** Milliseconds between a break and the next attempt: at first, and at most. */
const [shortestPause, longestPause] = [250, 15_000];
const connectMilliseconds = 2000;
/** Bytes of a question, or its answer, for which it may take a further millisecond (20 MB/s). */
const bytesOfMillisecond = 20_000;

/** Connections to one Redis. */
export class RedisLink {
  readonly #make: () => RedisClient;
  readonly #patience: number;
  readonly #events: LinkEvents;
  #clients: Clients | undefined;
  /** How long the next pause is. A connection that is made shortens nothing; what was of use does. */
  #pause = shortestPause;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /**
   * @param make makes a client that connects only when it is told to, and never by itself again
   * @param patience milliseconds for something that is asked
   */
  constructor(make: () => RedisClient, patience: number, events: LinkEvents) {
    this.#make = make;
    this.#patience = patience;
    this.#events = events;
  }

  /** Whether questions are asked at present. */
  get isUp(): boolean {
    return this.#clients !== undefined;
  }

  /** Connects. @throws what the first attempt fails with; others follow all the same, until it is closed */
  async open(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      this.#tryLater();
      throw error;
    }
  }

  /** Until when something is to be over that begins now, whose questions and answers have so many bytes. */
  deadline(bytes = 0): number {
    return performance.now() + this.#patience + bytes / bytesOfMillisecond;
  }

  /** Says that all of something was answered in its time, so that a later break is a new one. */
  confirm(): void {
    this.#pause = shortestPause;
  }

  /**
   * Asks a question.
   *
   * @param deadline until when it must be answered
   * @param isRight the shape of the answers that Redis gives to it; whatever gives others is none
   * @throws OutOfReachError where it is not answered; ReplyError, which Redis answered
   */
  async ask<T>(
    lane: keyof Clients,
    deadline: number,
    question: (client: RedisClient) => Promise<unknown>,
    isRight: Shape<T>,
  ): Promise<T> {
    const clients = this.#clients;
    if (!clients) throw new OutOfReachError("Redis is out of reach");
    try {
      const answer = await within(deadline - performance.now(), question(clients[lane]));
      if (!isRight(answer)) throw new Error("an answer that no Redis gives");
      return answer;
    } catch (error) {
      if (isReply(error) && !isUnfit(error)) throw error;
      this.#break(clients, error as Error);
      throw new OutOfReachError("Redis is out of reach", { cause: error });
    }
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const clients = this.#clients;
    this.#clients = undefined;
    if (clients) end(clients);
  }

  async #connect(): Promise<void> {
    const clients = { read: this.#make(), write: this.#make() };
    try {
      await within(connectMilliseconds, Promise.all(Object.values(clients).map(connect)));
    } catch (error) {
      end(clients);
      throw error;
    }
    if (this.#isClosed) {
      end(clients);
      return;
    }
    this.#clients = clients;
    for (const client of Object.values(clients)) {
      client.once("end", () => this.#break(clients, new Error("the connection has ended")));
    }
    this.#events.onUp();
  }

  #break(clients: Clients, why: Error): void {
    if (this.#clients !== clients) return;
    this.#clients = undefined;
    end(clients);
    this.#events.onDown(why);
    this.#tryLater();
  }

  #tryLater(): void {
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => void this.#connect().catch(() => this.#tryLater()), this.#pause).unref();
    this.#pause = Math.min(longestPause, this.#pause * 2);
  }
}

/** Whether Redis answers every question with such an error at present. */
function isUnfit(error: Error): boolean {
  return /^(LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|NOAUTH|WRONGPASS|TRYAGAIN)\b/.test(error.message);
}

/** @throws what is wrong with the connection, a refused password or database included */
async function connect(client: RedisClient): Promise<void> {
  let wrong: Error | undefined;
  client.on("error", (error) => {
    wrong ??= error; // later ones are told to those who ask
  });
  try {
    await client.connect();
    await client.ping();
  } catch (error) {
    wrong ??= error as Error;
  }
  if (wrong) throw wrong;
}

function end({ read, write }: Clients): void {
  read.disconnect();
  write.disconnect();
}

/** @throws Error when the time is over, and an answer has not even arrived that nobody has looked at yet */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const fail = () => reject(new Error("no answer in its time"));
    // Where this process was busy, answers wait to be read: timers come before them.
    timer = setTimeout(() => setImmediate(() => setImmediate(fail)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    promise.catch(() => {});
    late.catch(() => {});
  }
}
