// How a model is divided among backends, as text in the manner of ChatRWKV's strategies (https://github.com/BlinkDL/ChatRWKV):
// "webgpu *10 -> native" is ten layers on a GPU and the rest on the processor.

import { type BackendName, backendNames } from "./backends/backend.js";
import { type WeightDType, weightDTypes } from "./dtypes.js";
import { OptionError } from "./errors.js";

/** The parts, in their order. */
export type Strategy = readonly {
  readonly backend: BackendName;
  /** Where it is not that of the whole model. */
  readonly dtype?: WeightDType;
  readonly layers: number;
}[];

const expected =
  'parts such as "webgpu *10 -> native": two or more, each a backend ' +
  `(${backendNames.join(", ")}), its type of weights where that is not the model's (${weightDTypes.join(", ")}), and how many layers ` +
  "it has, which of the last may be left out";

/**
 * @param modelLayers how many layers the model has, where that is known
 * @throws OptionError for what is no strategy, or none for as many layers
 */
export function parseStrategy(text: string, modelLayers?: number): Strategy {
  const words = typeof text === "string" ? text.split("->").map((part) => part.trim().split(/\s+/)) : [];
  const parts = words.map((part, i) => parsePart(part, i === words.length - 1));
  if (parts.length < 2 || !parts.every((part) => part !== undefined)) throw new OptionError("strategy", text, expected);
  if (modelLayers === undefined) return parts;
  const before = parts.slice(0, -1).reduce((sum, { layers }) => sum + layers, 0);
  const last = parts.at(-1) as Strategy[number];
  const rest = modelLayers - before;
  if (rest < 1 || (last.layers !== 0 && last.layers !== rest)) {
    const wanted =
      last.layers === 0 ? `fewer than ${modelLayers} layers before the last part` : `${modelLayers} layers`;
    throw new OptionError("strategy", text, `${wanted}, since the model has ${modelLayers}`);
  }
  return [...parts.slice(0, -1), { ...last, layers: rest }];
}

/** A strategy as text, with all layers. */
export function strategyText(strategy: Strategy): string {
  return strategy
    .map(({ backend, dtype, layers }) => [backend, ...(dtype ? [dtype] : []), `*${layers}`].join(" "))
    .join(" -> ");
}

/** A part; of the last one layers that are left out are 0. */
function parsePart(words: readonly string[], isLast: boolean): Strategy[number] | undefined {
  const [name, ...others] = words;
  const backend = backendNames.find((one) => one === name);
  const dtype = weightDTypes.find((one) => one === others[0]);
  const [count, ...more] = dtype ? others.slice(1) : others;
  const layers = count === undefined && isLast ? 0 : Number(/^\*([1-9]\d{0,3})$/.exec(count ?? "")?.[1]);
  if (!backend || more.length > 0 || Number.isNaN(layers)) return undefined;
  return { backend, layers, ...(dtype && { dtype }) };
}
