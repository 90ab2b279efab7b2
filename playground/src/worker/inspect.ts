// What a file's header tells before its weights are read: how large the model is, and in which types it fits into a page.

import { openCheckpoint } from "rwkv";
import type { Inspection, Source } from "../protocol.js";
import { bytesPerWeight, nameOf } from "./loaded-model.js";
import { openSource } from "./open-source.js";

/** WebAssembly's memory; a little of it is for states and for what is computed. */
const mostBytes = 4 * 2 ** 30 * 0.94;

export async function inspect(source: Source): Promise<Inspection> {
  const { input, close, named } = await openSource(source);
  try {
    if (input === undefined) throw new Error("the model in the page is known");
    const checkpoint = await openCheckpoint(input);
    try {
      const sizes = { matrices: 0, others: 0, stored: 0 };
      for (const { shape, dtype } of checkpoint.tensors.values()) {
        const count = shape.reduce((product, size) => product * size, 1);
        const isMatrix = shape.filter((size) => size > 1).length === 2;
        sizes[isMatrix ? "matrices" : "others"] += count;
        // Types that are none of memory's are blocks of about four to eight bits.
        sizes.stored += count * (isMatrix ? (bytesPerWeight[dtype] ?? (/4|3|2/.test(dtype) ? 0.6 : 1.1)) : 4);
      }
      const inType = (dtype: "f16" | "q8" | "q4") =>
        sizes.matrices * (bytesPerWeight[dtype] as number) + sizes.others * 4;
      const choices = [
        { dtype: "stored" as const, bytes: sizes.stored },
        ...(["f16", "q8", "q4"] as const).map((dtype) => ({ dtype, bytes: inType(dtype) })),
      ];
      return {
        name: nameOf(source),
        format: checkpoint.format,
        tensors: checkpoint.tensors.size,
        parameters: sizes.matrices + sizes.others,
        choices: choices.map((choice) => ({ ...choice, fits: choice.bytes <= mostBytes })),
      };
    } finally {
      await checkpoint.close();
    }
  } catch (error) {
    throw new Error(named((error as Error).message), { cause: error });
  } finally {
    close();
  }
}
