// Computes the values of a graph call by call, in plain TypeScript: by the plain forms that descriptors carry.

import {
  callsOf,
  type Operand,
  operandName,
  type RowNode,
  type StateVector,
  type Vector,
  type WeightNode,
} from "../../graph/graph.js";
import { flatten } from "../../graph/operation.js";
import type { Floats, MatrixRows, PassInputs, Rows } from "../../graph/rows.js";

/** Where the weights and states of a graph are. */
export interface Context {
  matrix(weight: WeightNode): MatrixRows;
  vector(vector: Vector): Floats;
  /** Offset in a sequence's block, in floats. */
  offset(state: StateVector): number;
}

/**
 * Computes all nodes of a list; the result gives the value of each.
 *
 * @param order nodes, each after its inputs
 */
export function evaluate(order: readonly RowNode[], context: Context, pass: PassInputs): (node: RowNode) => Rows {
  const values = new Map<RowNode, Rows>();
  const of = (node: RowNode) => values.get(node) as Rows;
  for (const call of callsOf(order)) {
    const { operation } = call;
    const operands: Record<string, unknown> = { ...call.operands };
    const give = <T extends Operand, Value>(names: readonly string[], value: (operand: T) => Value) => {
      for (const key of names.map(operandName)) {
        const operand = call.operands[key] as T | readonly T[];
        operands[key] = Array.isArray(operand) ? operand.map(value) : value(operand as T);
      }
    };
    give(operation.inputs, of);
    give(operation.vectors, context.vector);
    give(Object.keys(operation.matrices), context.matrix);
    give(operation.states, context.offset);
    const results = flatten<Rows | undefined>(operation.outputs, operation.reference(operands as never, pass));
    results.forEach((value, i) => value && values.set(call.outputs[i] as RowNode, value));
  }
  return of;
}
