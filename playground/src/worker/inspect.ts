// What a file's header tells before its weights are read: how large the model is, and how much memory it takes in which type.

import { openCheckpoint } from "rwkv";
import type { Inspection, Source } from "../protocol.js";
import { bytesPerWeight, offeredTypes } from "./model-sizes.js";
import { openSource } from "./open-source.js";
import type { Context } from "./worker.js";

export async function inspect(source: Source, { signal }: Context<never>): Promise<Inspection> {
  const { input, name, from, close, named } = await openSource(source, signal);
  try {
    if (input === undefined) throw new Error("the model in the page is known");
    const checkpoint = await openCheckpoint(input);
    try {
      const sizes = { matrices: 0, others: 0, stored: 0, file: 0 };
      for (const { shape, dtype } of checkpoint.tensors.values()) {
        const count = shape.reduce((product, size) => product * size, 1);
        const isMatrix = shape.filter((size) => size > 1).length === 2;
        // Types that are none of memory's are blocks of about four to eight bits.
        const bytes = count * (bytesPerWeight[dtype] ?? (/4|3|2/.test(dtype) ? 0.6 : 1.1));
        sizes[isMatrix ? "matrices" : "others"] += count;
        sizes.stored += isMatrix ? bytes : count * 4;
        sizes.file += bytes;
      }
      const choices = [
        { dtype: "stored" as const, bytes: sizes.stored },
        ...offeredTypes.map((dtype) => {
          return { dtype, bytes: sizes.matrices * (bytesPerWeight[dtype] as number) + sizes.others * 4 };
        }),
      ];
      return {
        name,
        from,
        format: checkpoint.format,
        tensors: checkpoint.tensors.size,
        parameters: sizes.matrices + sizes.others,
        fileBytes: sizes.file,
        choices,
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
