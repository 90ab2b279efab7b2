// The symbol behind `await using`, which some browsers do not have yet.

/** `Symbol.asyncDispose`, or a symbol that stands in for it where the engine has none. */
export const asyncDispose: typeof Symbol.asyncDispose = (Symbol.asyncDispose ??
  Symbol.for("Symbol.asyncDispose")) as typeof Symbol.asyncDispose;
