// What tells a model from others whose states it must not be given.

import { createHash } from "node:crypto";
import type { Model } from "../../generation/model.js";

/** Tokens from which a model is known. */
const probeTokens = 32;
/** Text whose tokens tell tokenizers apart. */
const probeText =
  "The quick brown fox, 1984: naïve café.\n\n    if (x >= 10) { return 'ok'; } // 天地玄黄，宇宙洪荒。\u{1f600}";

/**
 * What tells a model from others whose states it must not be given. It is a hash of what the model computes, so that everything counts
 * which changes a bit: weights, adapters, the type of the weights, the backend with its kernels.
 */
export async function identityOf(model: Model): Promise<string> {
  const session = model.session();
  try {
    const { vocabulary } = model.info;
    const tokens = Array.from({ length: probeTokens }, (_, i) => (i * 7919 + 1) % vocabulary);
    await session.read(tokens, { keepLogits: true });
    return createHash("sha256")
      .update(await session.save())
      .digest("hex");
  } finally {
    await session.dispose();
  }
}

/**
 * What tells apart those that answer a text differently: the model, its tokenizer, and the state that every text begins with.
 *
 * @param state bytes of that state; undefined for none
 */
export async function answeringIdentity(model: Model, state?: Uint8Array): Promise<string> {
  return createHash("sha256")
    .update(await identityOf(model))
    .update(JSON.stringify([...model.tokenizer.encode(probeText)]))
    .update(state ? createHash("sha256").update(state).digest("hex") : "")
    .digest("hex");
}
