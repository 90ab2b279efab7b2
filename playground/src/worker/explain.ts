// A look into the loaded model, by the lab.

import { type Explanation, explain } from "rwkv/lab";
import type { Context } from "./worker.js";

/** Plain numbers are slow, and take four bytes a weight. */
const mostParameters = 64e6;

export async function explainText(text: string, { loaded }: Context<never>): Promise<Explanation> {
  const { info, tokenizer } = loaded.model;
  if (info.parameters > mostParameters) throw new RangeError("too large");
  return explain(loaded.input, text, tokenizer);
}
