// A checkpoint of the size of a small real model, made when a test needs it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writePth } from "rwkv";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { temporaryFolder } from "./fixture-files.js";
import { syntheticRwkv4 } from "./synthetic-rwkv4.js";

/** A .pth of 86 MB: 12 layers of 512, 2000 tokens, bfloat16. */
export async function largeCheckpoint(): Promise<Buffer> {
  const path = join(await temporaryFolder(), "large.pth");
  const { tensors } = syntheticRwkv4({ layers: 12, width: 512, hidden: 2048, vocabulary: 2000 }, "bf16");
  await writePth(
    path,
    [...tensors.values()].map((tensor) => ({
      name: tensor.name,
      dtype: "bf16" as const,
      shape: tensor.shape,
      bytes: () => tensorPieces(tensor, "bf16"),
    })),
  );
  return readFile(path);
}
