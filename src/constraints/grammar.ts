// A grammar: a set of texts that a generation is held to. It knows no tokens; `for(model)` makes a constraint of it.

import { OptionError } from "../errors.js";
import type { Constraint } from "../generation/generation-options.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { CompiledGrammar } from "./compiled-grammar.js";
import type { Expression } from "./expressions.js";
import { Machine } from "./machine.js";
import { buildNetwork } from "./network.js";
import { NetworkFacts } from "./network-facts.js";
import { trieOf } from "./token-trie.js";

/** What a constraint needs to know of a model; a `Model` has it. */
export interface ConstrainedModel {
  readonly tokenizer: Tokenizer;
  readonly info: { readonly vocabulary: number };
}

/** A set of texts. It is made once and may be used for any number of models and generations, also at once. */
export class Grammar {
  /** @internal */
  readonly expression: Expression;
  /** What it is called in errors. */
  readonly #option: string;
  #facts: NetworkFacts | undefined;

  /**
   * @throws OptionError for a grammar that is too large, or that no text can follow to its end
   * @internal
   */
  constructor(expression: Expression, option: string) {
    this.expression = expression;
    this.#option = option;
  }

  /** Checks the grammar now instead of with the first model. @internal */
  checked(): this {
    atOnce(this.#factsOf());
    return this;
  }

  /**
   * Makes the constraint of a model's texts: for the option `constrain` of `generate`. It remembers what it finds out
   * about tokens, so one that is used again is faster; several generations may use it at once.
   *
   * @throws OptionError for something that is not a model; TokenizerError where it has no tokenizer, or one whose tokens
   *   have no bytes of their own
   */
  for(model: ConstrainedModel): Constraint {
    return atOnce(this.compile(model));
  }

  /** Makes the constraint in steps of some milliseconds. @throws as `for` @internal */
  *compile(model: ConstrainedModel): Generator<void, Constraint, void> {
    const vocabulary = (model as Partial<ConstrainedModel> | undefined)?.info?.vocabulary;
    if (typeof model !== "object" || !Number.isInteger(vocabulary)) {
      throw new OptionError("model", model, "a model, or an object with its tokenizer and info.vocabulary");
    }
    const trie = yield* trieOf(model.tokenizer, vocabulary as number);
    const facts = yield* this.#factsOf();
    const machine = new Machine(facts);
    yield;
    const compiled = new CompiledGrammar(machine, trie, model.tokenizer, vocabulary as number);
    yield* compiled.masks.prepare();
    return compiled;
  }

  *#factsOf(): Generator<void, NetworkFacts, void> {
    if (!this.#facts) {
      const network = buildNetwork(this.expression, this.#option);
      yield;
      const facts = new NetworkFacts(network);
      yield;
      facts.check(this.#option);
      yield;
      this.#facts = facts;
    }
    return this.#facts;
  }
}

/** Takes all steps, where nothing else is to be done meanwhile. */
function atOnce<T>(steps: Generator<void, T, void>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
