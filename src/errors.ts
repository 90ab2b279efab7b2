// The error classes of the package. Every error that a caller can cause is one of these; its message names the file,
// tensor or option, what was expected and what was found.

/** The base class of every error that this package throws on purpose. */
export class RwkvError extends Error {
  override name = "RwkvError";
}

const maxMessage = 8000;

/** A checkpoint is missing, damaged, hostile, of an unknown format, or not a model that can be run. */
export class CheckpointError extends RwkvError {
  override name = "CheckpointError";
  /** The file that the error is about. */
  readonly file: string;

  constructor(file: string, message: string, options?: ErrorOptions) {
    // A message may quote names from the file, which can be megabytes long or contain control characters for a
    // terminal.
    const shown = message.length > maxMessage ? `${message.slice(0, maxMessage)}…` : message;
    super(`${file}: ${shown.replace(/[^\P{Cc}\n]/gu, "\uFFFD")}`, options);
    this.file = file;
  }
}

/**
 * A tokenizer is missing, damaged, of an unknown format, or does not fit the model; or a value cannot be a token id.
 */
export class TokenizerError extends RwkvError {
  override name = "TokenizerError";
}

/** An argument or option is outside its range or of a wrong type. */
export class OptionError extends RwkvError {
  override name = "OptionError";
  /** The name of the option. */
  readonly option: string;

  constructor(option: string, value: unknown, expected: string) {
    super(`option ${option}: expected ${expected}, found ${describeValue(value)}`);
    this.option = option;
  }
}

/** Saved state bytes are damaged or belong to another model, or a state or session cannot be used any more. */
export class StateError extends RwkvError {
  override name = "StateError";
}

/**
 * There are more states, or more requests that wait for a pass, than a limit allows. The same call may succeed later.
 */
export class LimitError extends RwkvError {
  override name = "LimitError";
  /** The name of the limit in `LoadOptions.limits`. */
  readonly limit: "states" | "waiting";
  /** The value of the limit. */
  readonly maximum: number;

  constructor(limit: "states" | "waiting", maximum: number) {
    super(
      limit === "states"
        ? `the model has ${maximum} states, which is its limit: dispose of states and sessions that are no longer needed ` +
            "(those that were dropped count until they are collected), or raise limits.states"
        : `${maximum} requests wait for the model, which is its limit: try again later, or raise limits.waiting`,
    );
    this.limit = limit;
    this.maximum = maximum;
  }
}

/** A backend cannot run here or cannot hold the model, or the model was used after `dispose()`. */
export class BackendError extends RwkvError {
  override name = "BackendError";
}

/** Training data cannot be used, a run cannot be resumed, or training has diverged. */
export class TrainingError extends RwkvError {
  override name = "TrainingError";
}

/** What was found, in words: for an OptionError about a part of a value. */
export class Found {
  readonly words: string;

  constructor(words: string) {
    this.words = words;
  }
}

function describeValue(value: unknown): string {
  if (value instanceof Found) return value.words;
  if (typeof value === "function") return "a function";
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name ?? "object";
    return `${/^[AEIOU]/i.test(name) ? "an" : "a"} ${name}`;
  }
  return String(value);
}
