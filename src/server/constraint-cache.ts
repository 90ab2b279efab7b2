// Constraints that were compiled for the model, by what asked for them: agents send the same schemas and tools with every request.

import { createHash } from "node:crypto";
import type { Grammar } from "../constraints/index.js";
import { OptionError, RwkvError } from "../errors.js";
import type { Constraint } from "../generation/generation-options.js";
import type { Model } from "../generation/model.js";
import { ApiError } from "./errors.js";
import { inPieces } from "./in-pieces.js";

/** Makes a grammar in steps. */
export type GrammarSteps = Generator<void, Grammar | undefined, void>;

/** How many constraints are kept. One with the World vocabulary takes some megabytes, and at most some tens of them. */
const keptConstraints = 16;

/** Compiles grammars for one model, and keeps the last ones. */
export class ConstraintCache {
  readonly #model: Model;
  /** The least recently used first. */
  readonly #kept = new Map<string, Promise<Constraint | undefined>>();

  constructor(model: Model) {
    this.#model = model;
  }

  /**
   * The constraint of a grammar. Making one takes up to a second, in pieces between which others are served; those who ask for the same one
   * meanwhile get the same.
   *
   * @param request what the grammar is made from, as JSON
   * @param make makes it in steps, or says that there is none
   * @throws what `make` throws; ApiError for a grammar that is too much, also later, by the constraint's functions; TokenizerError where
   *   tokens have no bytes of their own
   */
  of(request: object, make: () => GrammarSteps): Promise<Constraint | undefined> {
    const key = createHash("sha256").update(JSON.stringify(request)).digest("base64");
    const constraint = this.#kept.get(key) ?? inPieces(this.#compile(make()));
    // One that failed is made again, for whoever asks has an error of its own.
    constraint.catch(() => {
      if (this.#kept.get(key) === constraint) this.#kept.delete(key);
    });
    this.#kept.delete(key);
    this.#kept.set(key, constraint);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= keptConstraints) break;
      this.#kept.delete(oldest);
    }
    return constraint;
  }

  *#compile(steps: GrammarSteps): Generator<void, Constraint | undefined, void> {
    const grammar = yield* steps;
    if (!grammar) return undefined;
    yield;
    const compiling = grammar.compile(this.#model);
    for (;;) {
      const { done, value: constraint } = refusing(() => compiling.next());
      if (done) return { begin: () => refusingConstraint(constraint.begin?.() ?? constraint) };
      yield;
    }
  }
}

/** A constraint whose errors are the request's: some grammars turn out to be too ambiguous only when a text follows them. */
function refusingConstraint(own: Constraint): Constraint {
  return {
    allowedTokens: (generated) => refusing(() => own.allowedTokens?.(generated)),
    mayEnd: (generated) => refusing(() => own.mayEnd?.(generated) === true),
    forcedTokens: (generated) => refusing(() => own.forcedTokens?.(generated) ?? []),
  };
}

function refusing<T>(use: () => T): T {
  try {
    return use();
  } catch (error) {
    if (error instanceof OptionError || !(error instanceof RwkvError)) throw error;
    throw new ApiError(400, error.message, { code: "invalid_value", cause: error });
  }
}
