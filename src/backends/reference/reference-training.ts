// Training on the reference backend: gradients node by node, AdamW in plain TypeScript. In float64 it is what the rules of
// gradients are checked with.

import { readFloat32 } from "../../checkpoints/read-tensor.js";
import { lossOf } from "../../graph/differentiate.js";
import { type RowNode, topologicalOrder, type Vector, type WeightNode } from "../../graph/graph.js";
import { plainUnary } from "../../graph/operations/elementwise.js";
import type { Floats, PassInputs, RowRange } from "../../graph/rows.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import {
  biasCorrections,
  type OptimizerSettings,
  type SharedStep,
  selectTargets,
  type TrainableModel,
  type TrainingOptions,
  type TrainingRuntime,
  type TrainingSegment,
} from "../training.js";
import { tensorOf } from "../weights.js";
import { type Context, evaluate } from "./evaluate.js";

export interface ReferenceTraining extends TrainingRuntime {
  /** All weights by name, in the precision that was asked for. */
  readonly weights: ReadonlyMap<string, Floats>;
  /** The mean loss of a step, unrounded; nothing is learned. */
  meanLoss(segments: readonly TrainingSegment[], seed: number): number;
}

/** @param precision of weights and all values; what is read from outside is float32 in any case */
export async function openReferenceTraining(
  model: TrainableModel,
  _options: TrainingOptions,
  precision: "f32" | "f64" = "f32",
): Promise<ReferenceTraining> {
  const { graph, training, learned } = model;
  const floats = (from: ArrayLike<number>): Floats =>
    precision === "f64" ? Float64Array.from(from) : Float32Array.from(from);
  const weights = new Map<string, Floats>();
  for (const weight of new Set([...graph.weights, ...learned.keys()])) {
    weights.set(weight.name, floats(await readFloat32(tensorOf(model.tensors, weight))));
  }
  const layout = stateLayout(graph);
  const valuesOf = ({ name }: WeightNode) => weights.get(name) as Floats;
  const vector = (v: Vector): Floats => {
    if (v.op !== "vectorFunction") return valuesOf(v);
    const from = vector(v.x);
    const plain = plainUnary(v.function);
    return from.map((value: number) => plain(value));
  };
  const context: Context = {
    matrix: (weight) => ({
      rows: weight.shape[0] as number,
      width: weight.shape[1] as number,
      values: valuesOf(weight),
      isInBlocks: false,
    }),
    vector,
    offset: (state) => layout.offsets[state.index] as number,
  };
  const parameters = [...learned.keys()].map((weight) => {
    const values = valuesOf(weight);
    const zeros = () => floats(new Float32Array(values.length));
    return { weight, values, gradient: zeros(), firstMoment: zeros(), secondMoment: zeros() };
  });
  const evaluationLoss = lossOf(graph);
  const evaluationOrder = topologicalOrder(evaluationLoss);
  const stepOrder = topologicalOrder(training.loss, ...[...learned.values()].map(({ gradient }) => gradient));

  function run(order: readonly RowNode[], segments: readonly TrainingSegment[], seed: number, shared?: SharedStep) {
    return evaluate(order, context, inputsOf(segments, seed, shared));
  }

  return {
    threads: 1,
    weights,
    memory: 0,
    // Float32 for whoever reads them; in float64 the arrays themselves are in `weights`.
    parameters: parameters.map((parameter) => ({
      name: parameter.weight.name,
      shape: parameter.weight.shape,
      values: parameter.values as Float32Array,
      gradient: parameter.gradient as Float32Array,
      firstMoment: parameter.firstMoment as Float32Array,
      secondMoment: parameter.secondMoment as Float32Array,
    })),
    createState: () => ({ values: initialState(graph, valuesOf), release() {} }),
    meanLoss(segments, seed) {
      const { values } = run(topologicalOrder(training.loss), segments, seed)(training.loss);
      let sum = 0;
      for (const loss of values) sum += loss;
      return sum / values.length;
    },
    async evaluate(segments) {
      return Float32Array.from(run(evaluationOrder, segments, 0)(evaluationLoss).values);
    },
    async step(segments, settings, seed, shared) {
      const of = run(stepOrder, segments, seed, shared);
      for (const { weight, gradient } of parameters) gradient.set(of(learned.get(weight)?.gradient as RowNode).values);
      await shared?.sum(parameters.map(({ gradient }) => gradient as Float32Array));
      let squares = 0;
      for (const { gradient } of parameters) for (const g of gradient) squares += g * g;
      const gradientNorm = Math.sqrt(squares);
      if (Number.isFinite(gradientNorm)) {
        const scale = Math.min(1, settings.maxGradientNorm / gradientNorm);
        for (const parameter of parameters) adam(parameter, scale, settings);
      }
      return { losses: Float32Array.from(of(training.loss).values), gradientNorm };
    },
    async dispose() {},
  };

  function adam(parameter: (typeof parameters)[number], scale: number, settings: OptimizerSettings): void {
    const { weight, values, gradient, firstMoment, secondMoment } = parameter;
    const { rateFactor, decays } = learned.get(weight) as { rateFactor: number; decays: boolean };
    const { beta1, beta2, epsilon, weightDecay } = settings;
    const [correction1, correction2] = biasCorrections(settings);
    const rate = settings.learningRate * rateFactor;
    for (let i = 0; i < values.length; i++) {
      const g = (gradient[i] as number) * scale;
      const m = beta1 * (firstMoment[i] as number) + (1 - beta1) * g;
      const v = beta2 * (secondMoment[i] as number) + (1 - beta2) * g * g;
      firstMoment[i] = m;
      secondMoment[i] = v;
      const kept = (values[i] as number) * (decays ? 1 - rate * weightDecay : 1);
      values[i] = kept - (rate * (m / correction1)) / (Math.sqrt(v / correction2) + epsilon);
    }
  }
}

function inputsOf(
  segments: readonly TrainingSegment[],
  seed: number,
  { targetCount, firstRow }: Partial<SharedStep> = {},
): PassInputs {
  const ranges: RowRange[] = [];
  const tokens: number[] = [];
  for (const { state, nextState, tokens: own } of segments) {
    ranges.push({ start: tokens.length, count: own.length, state: state.values, nextState: nextState.values });
    tokens.push(...Array.from(own));
  }
  const place = { ...(targetCount !== undefined && { targetCount }), ...(firstRow !== undefined && { firstRow }) };
  return { ranges, tokens, ...selectTargets(segments), seed, ...place };
}
