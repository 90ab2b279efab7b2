// A training step in parts, for processes that share it: wherever enough gradients are complete, the list of records is cut, and
// what was computed before the cut is added up over the processes while the records behind it run.

import type { RowNode } from "../../graph/graph.js";
import type { Plan } from "../../graph/plan.js";
import type { Parameter } from "../training.js";
import { partOfRecords, type RecordList } from "./pass-memory.js";

/**
 * Bytes of gradients that are added up at once: an eighth of all, so that little is left to do when the last ones are computed, but
 * not so few that a message takes longer to begin than to send, nor more than is worth waiting for.
 */
const [leastBytes, mostBytes] = [2 ** 16, 2 ** 24];

/** Gradients that are complete at the same time, as far as processes that share a step are concerned. */
interface GradientBucket {
  readonly parameters: readonly Parameter[];
  /** The number of records after which they are complete. */
  readonly end: number;
}

/** The records of a step: all of them, and in the parts that processes run which share it. */
export interface StepRecords {
  readonly all: RecordList;
  readonly buckets: readonly { readonly records: RecordList; readonly parameters: readonly Parameter[] }[];
  readonly optimizer: RecordList;
}

/** For each gradient, how many operations of a plan it takes until it is complete. */
export function gradientEnds({ steps }: Plan, gradients: readonly RowNode[]): number[] {
  const ends = new Map(steps.flat().flatMap(({ outputs }, i) => outputs.map((node) => [node, i + 1] as const)));
  return gradients.map((gradient) => ends.get(gradient) as number);
}

/** Puts gradients together, in the order in which they are complete. @param ends as `gradientEnds`, for each parameter */
export function bucketsOf(parameters: readonly Parameter[], ends: readonly number[]): GradientBucket[] {
  const size = ({ shape }: Parameter) => 4 * shape.reduce((product, dimension) => product * dimension, 1);
  const total = parameters.reduce((sum, parameter) => sum + size(parameter), 0);
  const wanted = Math.min(mostBytes, Math.max(leastBytes, total / 8));
  const order = parameters.map((parameter, i) => ({ parameter, end: ends[i] as number }));
  order.sort((a, b) => a.end - b.end);
  const buckets: { parameters: Parameter[]; end: number }[] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const { parameter, end } of order) {
    const last = buckets.at(-1);
    if (last && (bytes < wanted || last.end === end)) {
      last.parameters.push(parameter);
      last.end = end;
      bytes += size(parameter);
    } else {
      buckets.push({ parameters: [parameter], end });
      bytes = size(parameter);
    }
  }
  return buckets;
}

/** @param optimizerCount the number of records at the end of the list that are the optimizer's */
export function partsOf(all: RecordList, buckets: readonly GradientBucket[], optimizerCount: number): StepRecords {
  const last = all.count - optimizerCount;
  return {
    all,
    buckets: buckets.map(({ parameters, end }, i) => ({
      // The last part has what is left, such as the loss of a graph that learns nothing behind it.
      records: partOfRecords(all, buckets[i - 1]?.end ?? 0, i === buckets.length - 1 ? last : end),
      parameters,
    })),
    optimizer: partOfRecords(all, last, all.count),
  };
}
