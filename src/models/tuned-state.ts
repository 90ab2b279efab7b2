// Reads what state tuning leaves: a .pth with the first states of a model's layers and nothing else. RWKV-LM (`--train_type states`)
// and RWKV-PEFT (`--peft state`) write it, and RWKV-Runner reads it: `blocks.N.att.time_state` for each layer. It does not tell its
// version: those of 5, 6 and 7 are alike.

import type { Checkpoint, StoredTensor } from "../checkpoints/checkpoint.js";
import { readFloat32 } from "../checkpoints/read-tensor.js";
import { CheckpointError } from "../errors.js";
import { initialState } from "../graph/state-layout.js";
import { describeSize, type ModelDefinition, type ModelSize } from "./model-definition.js";
import { bindWeights, listed } from "./tensor-layout.js";
import { nameInModel } from "./tensor-names.js";
import { canonicalTensors } from "./versions.js";

/** A model, as far as the states before its first token depend on it. */
export interface StatefulModel {
  readonly definition: ModelDefinition;
  readonly size: ModelSize;
}

/**
 * The floats of the state that a file of tuned states says. What it does not say is as before the first token.
 *
 * @throws CheckpointError where the file holds anything else, states of another model, or values that are not finite
 */
export async function readTunedState(file: Checkpoint, { definition, size }: StatefulModel): Promise<Float32Array> {
  const refuse = (problem: string) => new CheckpointError(file.name, problem);
  checkContents(file);
  const { version } = definition;
  const model = `this RWKV-${version} model of ${describeSize(size)}`;
  const sized = definition.withInitialStates?.(size);
  if (!sized) throw refuse(`tuned states (time_state) are of RWKV-5, 6 and 7; expected a state of ${model}`);
  const graph = definition.build(sized, { layerNormEpsilon: 1e-5 });
  const weights = graph.stateVectors.flatMap(({ initial }) => (typeof initial === "number" ? [] : [initial]));
  const tensors = canonicalTensors(file, definition);
  const { tensors: bound, problems } = bindWeights(definition, { ...graph, weights }, sized, tensors);
  if (problems.length > 0) {
    throw refuse(
      `tuned states of another model than ${model}; ${problems.length} tensor(s) are wrong:${listed(problems)}`,
    );
  }
  const values = new Map<unknown, Float32Array>();
  for (const weight of weights) {
    const elements = await readFloat32(bound.get(weight.name) as StoredTensor);
    if (!elements.every(Number.isFinite)) throw refuse(`tensor ${weight.name}: a value is NaN or infinite`);
    values.set(weight, elements);
  }
  return initialState(graph, (weight) => values.get(weight) as Float32Array);
}

/** @throws CheckpointError for a file that is not one of tuned states */
function checkContents({ name: file, format, tensors }: Checkpoint): void {
  const expected =
    "expected a saved state, or tuned states (a .pth with blocks.N.att.time_state for each layer and nothing else)";
  const other = [...tensors.keys()].find((name) => !/\.time_state$/.test(nameInModel(name)));
  if (other === undefined && tensors.size > 0 && format.startsWith("pth")) return;
  if (tensors.size === 0) throw new CheckpointError(file, `${expected}, found no tensors`);
  if (other === undefined) {
    const reason = "other programs have their rows and columns exchanged there, and nothing tells which have";
    throw new CheckpointError(file, `tuned states in ${format}: use the .pth (${reason})`);
  }
  const known = /\.ts_state$/.test(other)
    ? ", of full state tuning, which this version of the package does not run"
    : "";
  throw new CheckpointError(file, `${expected}, found tensor ${other.slice(0, 200)}${known}`);
}
