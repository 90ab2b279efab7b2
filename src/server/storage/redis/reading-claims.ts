// Claims of servers on texts that they read, so that the same text is read by one of them. A claim ends by itself when whoever made it is
// killed, and is renewed while it reads.

import { randomBytes } from "node:crypto";
import { setTimeout as after } from "node:timers/promises";
import { isNumber, isTextOrNothing } from "./answers.js";
import type { RedisLink } from "./link.js";
import type { Scripted } from "./scripts.js";

/** Milliseconds after which a claim ends, and after which it is renewed. */
const claimMilliseconds = 3000;
const renewMilliseconds = 1000;
/** Milliseconds between two looks at another server's claim: at first, and at most. */
const [shortestWait, longestWait] = [20, 160];
/** The most milliseconds for which another server is waited for. A text that takes longer to read is read twice. */
const waitMilliseconds = 30_000;
/** What Redis says of the time that a key has which is not there. */
const isAbsent = -2;

/** A claim of this server. */
interface Claim {
  readonly token: string;
  readonly renewing: NodeJS.Timeout;
}

/** The claims of one server, by key. */
export class ReadingClaims {
  readonly #link: RedisLink;
  readonly #claims = new Map<string, Claim>();

  constructor(link: RedisLink) {
    this.#link = link;
  }

  /** Claims a text. @returns whether nobody else has; @throws OutOfReachError, ReplyError */
  async claim(key: string): Promise<boolean> {
    if (this.#claims.has(key)) return true;
    const token = randomBytes(12).toString("hex");
    const answer = await this.#link.ask(
      "read",
      this.#link.deadline(),
      (client) => client.set(key, token, "PX", claimMilliseconds, "NX"),
      isTextOrNothing,
    );
    if (answer === null) return false;
    const renewing = setInterval(() => {
      void this.#call((scripted) => scripted.renewClaim(key, token, claimMilliseconds));
    }, renewMilliseconds).unref();
    this.#claims.set(key, { token, renewing });
    return true;
  }

  /** Gives a claim back, if there is one. */
  async release(key: string): Promise<void> {
    const claim = this.#claims.get(key);
    if (!claim) return;
    this.#claims.delete(key);
    clearInterval(claim.renewing);
    await this.#call((scripted) => scripted.releaseClaim(key, claim.token));
  }

  /**
   * Waits until another server has given its claim back, or it has ended, or for long enough.
   *
   * @returns whether it is over
   * @throws OutOfReachError; the signal's reason when it is aborted
   */
  async wait(key: string, signal: AbortSignal): Promise<boolean> {
    const end = performance.now() + waitMilliseconds;
    for (let pause = shortestWait; performance.now() < end; pause = Math.min(longestWait, pause * 2)) {
      await after(pause, undefined, { signal }).catch(() => signal.throwIfAborted());
      const left = await this.#link.ask("read", this.#link.deadline(), (client) => client.pttl(key), isNumber);
      if (left === isAbsent) return true;
      // A claim ends by itself, and soon: this is none.
      if (left < 0 || left > claimMilliseconds) await this.#remove(key);
    }
    return false;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#claims.keys()].map((key) => this.release(key)));
  }

  /** What fails here ends by itself: the claim does. */
  async #call(script: (scripted: Scripted) => Promise<unknown>): Promise<void> {
    await this.#link
      .ask("write", this.#link.deadline(), (client) => script(client as unknown as Scripted), isNumber)
      .catch(() => {});
  }

  async #remove(key: string): Promise<void> {
    await this.#link.ask("write", this.#link.deadline(), (client) => client.unlink(key), isNumber).catch(() => {});
  }
}
