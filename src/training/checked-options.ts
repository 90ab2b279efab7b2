// The options of a call of `train` as they were when it was made, checked as far as they do not belong to the recipe.

import { OptionError } from "../errors.js";
import { between, type Check, flag, oneOf, path, smallest, whole } from "./checks.js";
import type { TrainOptions } from "./options.js";

const callback: Check = (value) => (typeof value === "function" ? undefined : "a function");
/** By what it has: one of another realm, as in some test environments, is one too. */
const signal: Check = (value) =>
  typeof (value as AbortSignal).aborted === "boolean" && "addEventListener" in (value as object)
    ? undefined
    : "an AbortSignal";
const steps = whole(1, 2 ** 31);

const optional: Readonly<Record<string, Check>> = {
  resume: flag,
  from: path,
  tokenizer: path,
  steps,
  epochs: between(smallest, 1e6),
  validateEvery: steps,
  saveEvery: steps,
  backend: oneOf("native", "wasm", "reference"),
  threads: whole(1, 256),
  lora: (value) => (typeof value === "object" ? undefined : "an object"),
  signal,
  onStep: callback,
  onSave: callback,
  onNotice: callback,
};

/** A copy of the options without those that are undefined or null. @throws OptionError */
export function checkedOptions(options: TrainOptions): TrainOptions {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined && value !== null);
  const copy = Object.fromEntries(given) as unknown as TrainOptions;
  for (const name of ["data", "out"] as const) {
    const expected = path(copy[name]);
    if (expected !== undefined) throw new OptionError(name, copy[name], expected);
  }
  for (const [name, check] of Object.entries(optional)) {
    const value = copy[name as keyof TrainOptions];
    const expected = value === undefined ? undefined : check(value);
    if (expected !== undefined) throw new OptionError(name, value, expected);
  }
  if (copy.steps !== undefined && copy.epochs !== undefined) {
    throw new OptionError("epochs", copy.epochs, "either steps or epochs");
  }
  return copy.lora ? { ...copy, lora: structuredClone(copy.lora) } : copy;
}
