// Which matrices low-rank adaptation adds to: those that are asked for, which must be the version's, or all that it has.

import { OptionError } from "../errors.js";
import type { ModelDefinition } from "../models/model-definition.js";
import type { LoraOptions } from "./options.js";
import type { LoraRecipe } from "./recipe.js";

/** @throws OptionError for a name that no matrix of the version has */
export function loraOf({ matrices, ...lora }: LoraRecipe, { training }: ModelDefinition): Required<LoraOptions> {
  const { adapted } = training;
  if (matrices?.some((name) => !adapted.includes(name))) {
    throw new OptionError("lora.matrices", matrices, `some of ${adapted.join(", ")}`);
  }
  return { ...lora, matrices: matrices ?? adapted };
}
