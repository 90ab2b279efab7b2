// The symbol behind `await using`, which some browsers do not have yet.

/** `Symbol.asyncDispose`, or where there is none a symbol that stands in for it. */
export const asyncDispose: typeof Symbol.asyncDispose = (Symbol.asyncDispose ??
  Symbol.for("Symbol.asyncDispose")) as typeof Symbol.asyncDispose;
