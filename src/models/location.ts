// Where a weight lies in a checkpoint: a tensor by its name, and how it must be looked at - transposed, a part of it,
// in another shape. Each step is a view when weights are read, and is walked backwards to say which shape the tensor
// should have, and to put a weight that was changed back where it came from. So what a definition says once holds for
// reading, for errors, and for writing.

import { contiguousStrides, type StoredTensor } from "../checkpoints/checkpoint.js";
import { reshaped, sliced, transposed, withLastExchanged } from "../checkpoints/views.js";
import { elementCount } from "../dtypes.js";

interface Step {
  readonly view: (tensor: StoredTensor) => StoredTensor;
  /** The shape of a tensor of which a view of `shape` is made. */
  readonly before: (shape: readonly number[]) => readonly number[];
}

/** A view of a tensor of a checkpoint. Steps are said in the order in which they are taken from the tensor to the weight. */
export class Location {
  /** Canonical name of the tensor. */
  readonly tensor: string;
  readonly #steps: readonly Step[];

  constructor(tensor: string, steps: readonly Step[] = []) {
    this.tensor = tensor;
    this.#steps = steps;
  }

  /** Whether it is all of the tensor as it is. */
  get isWhole(): boolean {
    return this.#steps.length === 0;
  }

  /** The last two dimensions exchanged: low-rank matrices that are stored as [inputs, outputs]. */
  transposed(): Location {
    return this.#then({ view: transposed, before: withLastExchanged });
  }

  /** One of the `count` along the first dimension, which then goes: a vector or matrix of several that were stacked. */
  entry(index: number, count: number): Location {
    return this.#then({
      view(tensor) {
        const { shape, strides, ...rest } = sliced(tensor, 0, index, index + 1);
        return { ...rest, shape: shape.slice(1), strides: strides.slice(1) };
      },
      before: (shape) => [count, ...shape],
    });
  }

  /** One of `count` equal parts along a dimension: a matrix of several that were joined. */
  part(index: number, count: number, axis: number = 0): Location {
    return this.#then({
      view(tensor) {
        const size = (tensor.shape[axis] as number) / count;
        return sliced(tensor, axis, index * size, (index + 1) * size);
      },
      before: (shape) => shape.with(axis, (shape[axis] as number) * count),
    });
  }

  /**
   * The same elements, stored in the shape `stored`, in the shape `shape`; of a tensor that is row-major, so before
   * other steps.
   */
  reshaped(stored: readonly number[], shape: readonly number[]): Location {
    return this.#then({ view: (tensor) => reshaped(tensor, shape), before: () => stored });
  }

  /** The shape that the tensor has where the weight has this one. */
  storedShape(shape: readonly number[]): readonly number[] {
    return this.#steps.reduceRight((after, step) => step.before(after), shape);
  }

  /** The weight in a tensor of the shape that `storedShape` tells. */
  viewOf(tensor: StoredTensor): StoredTensor {
    return this.#steps.reduce((view, step) => step.view(view), tensor);
  }

  /**
   * Writes the values of a weight where they lie in the tensor.
   *
   * @param values row-major, of a weight of shape `shape`
   * @param elements of the whole tensor, row-major
   */
  put(values: Float32Array, shape: readonly number[], elements: Float32Array): void {
    const stored = this.storedShape(shape);
    // Views are made of row-major elements, so where an element is read from is where it is to be written.
    const tensor = rowMajor(stored);
    const { strides, offset, source } = this.viewOf(tensor);
    if (source !== tensor.source)
      throw new RangeError(`${this.tensor}: reshaped after a step that strides cannot follow`);
    const from = contiguousStrides(shape);
    const walk = (axis: number, source: number, target: number): void => {
      if (axis === shape.length) {
        elements[target] = values[source] as number;
        return;
      }
      for (let i = 0; i < (shape[axis] as number); i++) {
        walk(axis + 1, source + i * (from[axis] as number), target + i * (strides[axis] as number));
      }
    };
    walk(0, 0, offset);
  }

  #then(step: Step): Location {
    return new Location(this.tensor, [...this.#steps, step]);
  }
}

/** A tensor of a checkpoint, as it is; its canonical name. */
export function stored(tensor: string): Location {
  return new Location(tensor);
}

/** A tensor of bytes, so that offsets are numbers of elements; nothing reads it. */
function rowMajor(shape: readonly number[]): StoredTensor {
  const source = {
    name: "",
    size: elementCount(shape),
    async readInto() {},
    async close() {},
  };
  return { name: "", dtype: "u8", shape, strides: contiguousStrides(shape), source, offset: 0 };
}
