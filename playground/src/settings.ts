// What the user has chosen, kept in this browser. A few small values that are read before anything is drawn: localStorage.

import { effect, type Signal, signal } from "@preact/signals";
import type { PresetName, Sampling, Way } from "./protocol.js";

function kept<Value>(name: string, initial: Value, isValid: (value: unknown) => boolean): Signal<Value> {
  const key = `rwkv.${name}`;
  let first = initial;
  try {
    const stored = JSON.parse(localStorage.getItem(key) ?? "null");
    if (stored !== null && isValid(stored)) first = stored;
  } catch {
    // Storage may be refused, or hold something else.
  }
  const value = signal(first);
  effect(() => {
    const text = JSON.stringify(value.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // Then it is kept until the page is closed.
    }
  });
  return value;
}

const isOneOf =
  (...values: readonly string[]) =>
  (value: unknown) =>
    values.includes(value as string);
const isNumber = (least: number, most: number) => (value: unknown) =>
  typeof value === "number" && value >= least && value <= most;

export type Language = "en" | "zh";
export type Theme = "system" | "light" | "dark";

export const language = kept<Language>(
  "language",
  navigator.language.startsWith("zh") ? "zh" : "en",
  isOneOf("en", "zh"),
);
export const theme = kept<Theme>("theme", "system", isOneOf("system", "light", "dark"));

export const defaultHub = "https://huggingface.co";
/** The hub that names of models are of, or a mirror of it. */
export const hub = kept<string>("hub", defaultHub, (value) => typeof value === "string");

/** How each kept model was to be computed with when it was chosen last, by `wayKey`. */
export const ways = kept<Readonly<Record<string, Way>>>(
  "ways",
  {},
  (value) => typeof value === "object" && !Array.isArray(value),
);

/** A kept model is known by where it is from and the name of its file. */
export function wayKey(from: string, title: string): string {
  return `${from} ${title}`;
}

export const defaultSampling: Sampling = {
  temperature: 1,
  topP: 0.6,
  topK: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  penaltyDecay: 0.996,
};
/** The ranges of sampling options that the page offers. */
export const samplingRanges: Readonly<Record<keyof Sampling, readonly [least: number, most: number, step: number]>> = {
  temperature: [0, 2, 0.01],
  topP: [0, 1, 0.01],
  topK: [0, 200, 1],
  presencePenalty: [0, 3, 0.05],
  frequencyPenalty: [0, 3, 0.05],
  penaltyDecay: [0.9, 1, 0.001],
};

const isSampling = (value: unknown) =>
  typeof value === "object" &&
  value !== null &&
  Object.entries(samplingRanges).every(([name, [least, most]]) =>
    isNumber(least, most)((value as Record<string, unknown>)[name]),
  );
export const sampling = kept<Sampling>("sampling", defaultSampling, isSampling);
export const preset = kept<PresetName | "default" | "own">("preset", "default", (value) => typeof value === "string");
export const maxTokens = kept<number>("maxTokens", 400, isNumber(1, 16_384));
export const thinks = kept<boolean>("thinks", true, (value) => typeof value === "boolean");
export const systemPrompt = kept<string>("system", "", (value) => typeof value === "string");
