// What the server counts and measures, in Prometheus' text format. No text, key or name that a client chose is ever a label.

import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Model } from "../generation/model.js";
import type { Admission } from "./admission.js";
import type { Shelf } from "./shelf.js";
import type { StateCache } from "./state-cache.js";
import type { StateStorage } from "./storage/state-storage.js";

const shortTimes = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const longTimes = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Where an application keeps states. */
export interface KeptStates {
  readonly cache: StateCache;
  readonly states: Shelf;
  readonly responses: Shelf;
  readonly storage: StateStorage | undefined;
}

/** The metrics of one application. */
export class Metrics {
  readonly #registry = new Registry();
  readonly requests: Counter<"route" | "method" | "status">;
  readonly requestSeconds: Histogram<"route">;
  readonly queueSeconds: Histogram;
  readonly firstTokenSeconds: Histogram;
  readonly tokenSeconds: Histogram;
  readonly promptTokens: Counter;
  readonly cachedTokens: Counter;
  readonly generatedTokens: Counter;

  constructor(model: Model, admission: Admission, { cache, states, responses, storage }: KeptStates) {
    const registers = [this.#registry];
    const counter = (name: string, help: string) => new Counter({ name: `rwkv_${name}`, help, registers });
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name: `rwkv_${name}`, help, buckets, registers });
    this.requests = new Counter({
      name: "rwkv_requests_total",
      help: "Requests that were answered, by route, method and status.",
      labelNames: ["route", "method", "status"],
      registers,
    });
    this.requestSeconds = new Histogram({
      name: "rwkv_request_seconds",
      help: "Seconds from a request to the end of its answer.",
      labelNames: ["route"],
      buckets: longTimes,
      registers,
    });
    this.queueSeconds = histogram("request_queue_seconds", "Seconds that requests waited for a place.", longTimes);
    this.firstTokenSeconds = histogram(
      "time_to_first_token_seconds",
      "Seconds from a request to its first token.",
      longTimes,
    );
    this.tokenSeconds = histogram(
      "inter_token_seconds",
      "Seconds between two tokens of a text, without its reader's.",
      shortTimes,
    );
    this.promptTokens = counter("prompt_tokens_total", "Tokens of prompts.");
    this.cachedTokens = counter(
      "cached_prompt_tokens_total",
      "Tokens of prompts that were not read, since a state was kept.",
    );
    this.generatedTokens = counter("generated_tokens_total", "Tokens of texts that were written.");

    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name: `rwkv_${name}`,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    /** A counter that follows a number which only grows. */
    const following = (name: string, help: string, value: () => number) => {
      let before = 0;
      new Counter({
        name: `rwkv_${name}`,
        help,
        registers,
        collect() {
          const now = value();
          this.inc(now - before);
          before = now;
        },
      });
    };
    gauge("texts_running", "Texts that are read or written.", () => admission.statistics.running);
    gauge("requests_waiting", "Requests that wait for a place.", () => admission.statistics.waiting);
    gauge("sequences", "States that the model holds.", () => model.scheduler.states);
    following("passes_total", "Passes over the weights.", () => model.scheduler.passes);
    following("pass_rows_total", "Rows (tokens run) of all passes.", () => model.scheduler.rows);
    gauge("state_cache_entries", "States in the cache.", () => cache.statistics.entries);
    gauge("state_cache_bytes", "Bytes that the states in the cache take.", () => cache.statistics.bytes);
    following("state_cache_lookups_total", "Prompts that were looked up in the cache.", () => cache.statistics.lookups);
    following("state_cache_hits_total", "Prompts of which the cache had a beginning.", () => cache.statistics.hits);
    gauge("kept_states", "States that clients made.", () => states.statistics.count);
    gauge("kept_state_bytes", "Bytes that they take.", () => states.statistics.bytes);
    gauge("kept_responses", "Responses that can be continued.", () => responses.statistics.count);
    gauge("kept_response_bytes", "Bytes that they take.", () => responses.statistics.bytes);
    if (storage) gauge("state_storage_bytes", "Bytes of what outlives the server.", () => storage.bytes);
    storage?.addMetrics?.(this.#registry);
    following("state_cache_evictions_total", "States that the cache let go.", () => cache.statistics.evictions);
  }

  /** Adds those of something else. */
  add(source: { addMetrics(registry: Registry): void }): void {
    source.addMetrics(this.#registry);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics as text. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
