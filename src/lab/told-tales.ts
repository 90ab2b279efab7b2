// Text to compare architectures on where none is given: tales told by the model in the package, the same in every run.

import { load } from "../load.js";

/** Sequences that are told side by side: each weight is read once for all of them. */
const tellers = 32;

/** @param tokens about how many; @returns one text for each teller */
export async function toldTales(tokens: number, onProgress?: (done: number) => void): Promise<string[]> {
  const model = await load();
  try {
    const length = Math.ceil(tokens / tellers);
    let done = 0;
    return await Promise.all(
      Array.from({ length: tellers }, async (_, seed) => {
        const generation = model.generate("\n\n", {
          maxTokens: length,
          seed,
          temperature: 0.9,
          topP: 0.9,
          stopTokens: [],
        });
        let text = "";
        for await (const piece of generation) {
          text += piece;
          onProgress?.(++done);
        }
        return text;
      }),
    );
  } finally {
    await model.dispose();
  }
}
