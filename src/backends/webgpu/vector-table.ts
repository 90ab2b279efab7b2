// The vectors of a model, one after the other: small weights that are float32 whatever the type of the matrices.

import type { Vector } from "../../graph/graph.js";

/** Vectors and functions of vectors, placed when they are first asked for. */
export class VectorTable {
  readonly #valuesOf: (vector: Vector) => Float32Array;
  readonly #places = new Map<Vector, number>();
  readonly #vectors: Float32Array[] = [];
  #length = 0;

  constructor(valuesOf: (vector: Vector) => Float32Array) {
    this.#valuesOf = valuesOf;
  }

  /** Where a vector begins, in floats. */
  place(vector: Vector): number {
    let place = this.#places.get(vector);
    if (place === undefined) {
      place = this.#length;
      const values = this.#valuesOf(vector);
      this.#places.set(vector, place);
      this.#vectors.push(values);
      this.#length += values.length;
    }
    return place;
  }

  /** All of them. */
  values(): Float32Array<ArrayBuffer> {
    const all = new Float32Array(this.#length);
    let at = 0;
    for (const values of this.#vectors) {
      all.set(values, at);
      at += values.length;
    }
    return all;
  }
}
