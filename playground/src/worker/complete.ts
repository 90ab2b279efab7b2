// Texts that continue a prompt, token by token, with what else the model would have written.

import type { CompleteRequest, Ending, WrittenToken } from "../protocol.js";
import type { Context } from "./worker.js";

/** Alternatives that are told of each token. */
const others = 8;

export async function complete(
  { prompt, kept, sampling, maxTokens }: CompleteRequest,
  { loaded, signal, send }: Context<WrittenToken>,
): Promise<Ending> {
  const { model, states } = loaded;
  const { tokenizer } = model;
  const known = prompt === "" ? undefined : states.find([prompt]);
  const session = model.session(known?.snapshot);
  try {
    if (!known && prompt !== "") {
      await session.read(prompt, { signal });
      states.add([prompt], await session.snapshot());
    }
    if (kept.length > 0)
      await session.read(
        kept.map(({ id }) => id),
        { signal },
      );
    const promptTokens = session.position;
    const generation = session.generate({ ...sampling, maxTokens, logProbabilities: others, signal });
    for await (const step of generation.steps()) {
      if (step.token === undefined) continue;
      send({
        id: step.token,
        text: step.text,
        probability: Math.exp(step.logProbability ?? Number.NEGATIVE_INFINITY),
        others: (step.topLogProbabilities ?? []).map(({ token, logProbability }) => {
          return { id: token, text: tokenizer.decode([token]), probability: Math.exp(logProbability) };
        }),
      });
    }
    const { finishReason, generatedTokens, decodeTokensPerSecond } = await generation.result;
    return {
      reason: finishReason,
      generatedTokens,
      tokensPerSecond: decodeTokensPerSecond,
      promptTokens,
      reusedTokens: known?.snapshot.position ?? 0,
    };
  } finally {
    await session.dispose();
  }
}
