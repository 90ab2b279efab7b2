// The records of the optimizer, after those of the gradients, and the settings that change from step to step
// (kernels/optimizer.c; the two change together).

import type { LearnedWeight, OptimizerSettings } from "../training.js";
import { biasCorrections } from "../training.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import type { RecordFields } from "./record.js";

const settingsSize = 64;
const normOffset = 32;
/** Elements whose squares are summed by one thread. */
const squaresChunk = 4096;

/** A learned weight, and where it, its gradient and its two moments lie. */
interface PlacedWeight extends LearnedWeight {
  readonly addresses: readonly number[];
}

export class Optimizer {
  readonly records: readonly RecordFields[];
  readonly #settings: Block;

  constructor(machine: KernelMachine, weights: readonly PlacedWeight[]) {
    this.#settings = machine.allocate(settingsSize);
    const sizes = weights.map(({ gradient }) => (gradient.rows as number) * gradient.width);
    const chunks = sizes.map((size) => Math.ceil(size / squaresChunk));
    const count = chunks.reduce((sum, n) => sum + n, 0);
    const partial = machine.allocate(count * 8);
    let at = partial.address;
    const squares = weights.map(({ gradient: { rows, width }, addresses }, i): RecordFields => {
      const address = at;
      at += (chunks[i] as number) * 8;
      return { kernel: "sumOfSquares", rows, width, addresses: [addresses[1] as number, address] };
    });
    const last = squares.at(-1);
    const steps = weights.map(({ gradient: { rows, width }, addresses, rateFactor, decays }): RecordFields => {
      const all = [this.#settings.address, ...addresses];
      const attributes = [{ number: rateFactor }, { count: decays ? 1 : 0 }];
      return { kernel: "adam", rows, width, attributes, addresses: all };
    });
    this.records = [
      ...squares.slice(0, -1),
      ...(last ? [{ ...last, barrierAfter: "always" as const }] : []),
      {
        kernel: "gradientNorm",
        barrierAfter: "always",
        attributes: [{ count }],
        addresses: [this.#settings.address, partial.address],
      },
      ...steps,
    ];
  }

  /** Writes what the next step is to do. */
  write(settings: OptimizerSettings): void {
    const { learningRate, beta1, beta2, epsilon, weightDecay, maxGradientNorm } = settings;
    const values = [learningRate, beta1, beta2, epsilon, weightDecay, maxGradientNorm, ...biasCorrections(settings)];
    values.forEach((value, i) => void this.#view.setFloat32(4 * i, value, true));
  }

  /** The gradient norm of the last step. */
  get gradientNorm(): number {
    return this.#view.getFloat32(normOffset, true);
  }

  get #view(): DataView {
    const { buffer, byteOffset } = this.#settings.bytes;
    return new DataView(buffer, byteOffset, settingsSize);
  }
}
