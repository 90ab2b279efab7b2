// Which matrices low-rank adaptation adds to: those that are asked for, which must be the version's, or all that it has.

import { OptionError } from "../errors.js";
import type { ModelDefinition } from "../models/model-definition.js";
import type { LoraOptions } from "./options.js";
import type { LoraRecipe } from "./recipe.js";

/** @throws OptionError for a name that no matrix of the version has */
export function loraOf({ matrices, ...lora }: LoraRecipe, { training }: ModelDefinition): Required<LoraOptions> {
  const { adapted } = training;
  const unknown = matrices?.find((name) => !adapted.includes(name));
  if (unknown !== undefined) throw new OptionError("lora.matrices", unknown, `some of ${adapted.join(", ")}`);
  return { ...lora, matrices: matrices ?? adapted };
}
