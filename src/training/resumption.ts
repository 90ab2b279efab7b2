// The options that may change when a run is resumed: where it ends, and where its base model is now. Every other option must be
// the one that the run was started with; a different one is refused rather than ignored.

import { OptionError } from "../errors.js";
import type { LoraOptions, TrainOptions } from "./options.js";
import { absolute, type Recipe } from "./recipe.js";
import { lengthOf } from "./schedule.js";

/** Options that say of a new model what a base model says itself. */
export const sizeOptions = ["version", "layers", "width", "hidden", "vocabulary"] as const;

/** Options that other rules than equality are for. */
const apart: ReadonlySet<string> = new Set(["from", "tokenizer", "steps", "epochs", "warmup", "lora"]);

/**
 * The recipe of a run that is resumed, with its base model where it is said to lie.
 *
 * @throws OptionError for an option that is not what the run was begun with
 */
export function resumedRecipe(recipe: Recipe, given: TrainOptions, folder: string): Recipe {
  const begun = `with which the run in ${folder} was started`;
  for (const [name, value] of Object.entries(recipe)) {
    const option = given[name as keyof TrainOptions];
    if (option === undefined || option === value || apart.has(name)) continue;
    // Compared with the base model, since runs that were begun by earlier versions have recorded others.
    if (recipe.from !== null && (sizeOptions as readonly string[]).includes(name)) continue;
    throw new OptionError(name, option, `${String(value)}, ${begun}`);
  }
  if (given.lora) checkLora(given.lora, recipe.lora, begun);
  if (given.from === undefined) return recipe;
  if (recipe.from === null)
    throw new OptionError("from", given.from, `none, since the run in ${folder} was started with random weights`);
  return { ...recipe, from: absolute(given.from) };
}

function checkLora(given: LoraOptions, recorded: Recipe["lora"], begun: string): void {
  if (!recorded) throw new OptionError("lora", given, `none, ${begun}`);
  for (const [name, value] of Object.entries(recorded)) {
    const option = given[name as keyof LoraOptions];
    if (option === undefined || String(option) === String(value)) continue;
    throw new OptionError(`lora.${name}`, option, `${String(value)}, ${begun}`);
  }
}

/**
 * The recipe of a run with the length that it is to have from now on. Where that is another than before, the warm-up stays as
 * long as it was, and the learning rate continues as in a run that had this length from its beginning.
 *
 * @param done steps that the run has done
 * @throws OptionError for fewer steps than that, or for another warm-up
 */
export function extended(recipe: Recipe, given: TrainOptions, stepsPerEpoch: number, done: number): Recipe {
  const { steps, warmup } = lengthOf(recipe, stepsPerEpoch);
  if (given.warmup !== undefined && given.warmup !== warmup) {
    throw new OptionError("warmup", given.warmup, `${warmup}, with which the run was started`);
  }
  const name = given.steps === undefined ? "epochs" : "steps";
  if (given[name] === undefined) return recipe;
  const longer = { ...recipe, steps: given.steps ?? null, epochs: given.epochs ?? null, warmup };
  const wanted = lengthOf(longer, stepsPerEpoch).steps;
  if (wanted < done) throw new OptionError(name, given[name], `no fewer than the ${done} steps that were done`);
  return wanted === steps ? recipe : longer;
}
