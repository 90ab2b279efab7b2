// The error classes of the package. Every error that a caller can cause is one of these; its message names the file,
// tensor or option, what was expected and what was found.

/** Base class of every error this package throws on purpose. */
export class RwkvError extends Error {
  override name = "RwkvError";
}

const maxMessage = 8000;

/** A checkpoint file is damaged, hostile, of an unknown format, or not the model that its names claim. */
export class CheckpointError extends RwkvError {
  override name = "CheckpointError";
  /** The file the error is about. */
  readonly file: string;

  constructor(file: string, message: string, options?: ErrorOptions) {
    // A message may quote names from the file, which can be megabytes long, or hold characters that steer a terminal.
    const shown = message.length > maxMessage ? `${message.slice(0, maxMessage)}…` : message;
    super(`${file}: ${shown.replace(/[^\P{Cc}\n]/gu, "\uFFFD")}`, options);
    this.file = file;
  }
}

/** A tokenizer file is damaged or of an unknown format, or a token id is outside the vocabulary. */
export class TokenizerError extends RwkvError {
  override name = "TokenizerError";
}

/** An option has a value outside its range. */
export class OptionError extends RwkvError {
  override name = "OptionError";
  /** The option's name. */
  readonly option: string;

  constructor(option: string, value: unknown, expected: string) {
    super(`option ${option}: expected ${expected}, found ${describeValue(value)}`);
    this.option = option;
  }
}

/** Saved state bytes are damaged, of another version, or belong to another model. */
export class StateError extends RwkvError {
  override name = "StateError";
}

/** More was asked for at once than a limit allows: states, or requests that wait for a pass. Later there may be space again. */
export class LimitError extends RwkvError {
  override name = "LimitError";
  /** Which limit of `LoadOptions.limits` it is. */
  readonly limit: "states" | "waiting";
  /** What the limit is set to. */
  readonly maximum: number;

  constructor(limit: "states" | "waiting", maximum: number) {
    super(
      limit === "states"
        ? `the model has ${maximum} states, as many as its limit allows: dispose of states and sessions that are done with (those that were dropped count until they are collected), or raise limits.states`
        : `${maximum} requests wait for the model, as many as its limit allows: try again later, or raise limits.waiting`,
    );
    this.limit = limit;
    this.maximum = maximum;
  }
}

/** A backend cannot run here, cannot hold the model, or was used after `dispose()`. */
export class BackendError extends RwkvError {
  override name = "BackendError";
}

/** Training data cannot be used, a run cannot be resumed, or training has diverged. */
export class TrainingError extends RwkvError {
  override name = "TrainingError";
}

function describeValue(value: unknown): string {
  if (typeof value === "function") return "a function";
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    const name = value.constructor?.name ?? "object";
    return `${/^[AEIOU]/i.test(name) ? "an" : "a"} ${name}`;
  }
  return String(value);
}
