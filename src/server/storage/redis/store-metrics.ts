// What is counted and measured of a Redis for states, in Prometheus' format.

import { Counter, Gauge, Histogram, type Registry } from "prom-client";

const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

/** What is asked of Redis. */
export type Operation = "find" | "store" | "claim" | "object";

/**
 * How it went. "found" and "absent" are of what was looked for, "done" of anything else; "unreachable" is what was not answered, or not even
 * asked since it could not be; "refused" what Redis answered with an error, as one that is full; "damaged" what was found and is none of
 * what its key says.
 */
export type Outcome = "found" | "absent" | "done" | "unreachable" | "refused" | "damaged";

/** An answer, and how it went. */
export interface Asked<T> {
  readonly outcome: Outcome;
  readonly value: T;
}

/** What metrics show of the present. */
export interface StoreFigures {
  readonly isUp: boolean;
  readonly waiting: number;
  readonly waitingBytes: number;
}

/** The metrics of one store. */
export class StoreMetrics {
  readonly #operations = new Counter({
    name: "rwkv_state_store_operations_total",
    help: "What was asked of the Redis for states, by what it was and how it went.",
    labelNames: ["operation", "outcome"],
    registers: [],
  });
  readonly #seconds = new Histogram({
    name: "rwkv_state_store_seconds",
    help: "Seconds that it took, waiting for other servers not included.",
    labelNames: ["operation"],
    buckets: seconds,
    registers: [],
  });
  readonly readBytes: Counter = counter("read_bytes", "Bytes of states that were read from it.");
  readonly writtenBytes: Counter = counter("written_bytes", "Bytes of states that were written to it.");
  readonly leftOut: Counter = counter(
    "left_out",
    "States that were not written, since too many waited or it took none.",
  );
  readonly waits: Counter = counter("waits", "Prompts that waited for another server, which was reading the same.");
  readonly breaks: Counter = counter(
    "breaks",
    "Times that it did not answer, after which it is not asked for a while.",
  );

  /** Counts and measures something that is asked. */
  async measure<T>(operation: Operation, ask: () => Promise<Asked<T>>): Promise<T> {
    const started = performance.now();
    let outcome: Outcome = "unreachable";
    try {
      const result = await ask();
      outcome = result.outcome;
      return result.value;
    } catch (error) {
      if ((error as Error).name === "ReplyError") outcome = "refused";
      throw error;
    } finally {
      this.count(operation, outcome);
      this.#seconds.observe({ operation }, (performance.now() - started) / 1000);
    }
  }

  count(operation: Operation, outcome: Outcome): void {
    this.#operations.inc({ operation, outcome });
  }

  /** @param figures what the store is doing */
  addTo(registry: Registry, figures: () => StoreFigures): void {
    const all = [this.readBytes, this.writtenBytes, this.leftOut, this.waits, this.breaks];
    for (const metric of [this.#operations, this.#seconds, ...all]) registry.registerMetric(metric);
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name: `rwkv_state_store_${name}`,
        help,
        registers: [registry],
        collect() {
          this.set(value());
        },
      });
    gauge("up", "1 while the Redis for states answers.", () => Number(figures().isUp));
    gauge("waiting", "States that wait to be written to it.", () => figures().waiting);
    gauge("waiting_bytes", "Bytes of them.", () => figures().waitingBytes);
  }
}

function counter(name: string, help: string): Counter {
  return new Counter({ name: `rwkv_state_store_${name}_total`, help, registers: [] });
}
