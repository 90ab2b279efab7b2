// Answers of conversations.

import { type ChatMessage, chatPrompt, type Session, ThinkingReader } from "rwkv";
import type { ChatPiece, ChatRequest, Ending } from "../protocol.js";
import { formatOfLoaded } from "./chat-format.js";
import type { Context } from "./worker.js";

export async function chat(request: ChatRequest, context: Context<ChatPiece>): Promise<Ending> {
  const { loaded, signal, send } = context;
  const { model, states } = loaded;
  const format = formatOfLoaded(loaded, request.format);
  const thinking = format.thinks ? (request.thinks ? "on" : "off") : "auto";
  const messages: readonly ChatMessage[] = request.messages;
  const prompt = chatPrompt(model, messages, { format: format.name, thinking });
  const pieces = request.begun === "" ? prompt.pieces : [...prompt.pieces, request.begun];
  const known = states.find(pieces);
  const session = model.session(known?.snapshot);
  try {
    for (let i = known?.length ?? 0; i < pieces.length; i++) {
      await session.read(pieces[i] as string, { signal });
      states.add(pieces.slice(0, i + 1), await session.snapshot());
    }
    const promptTokens = session.position;
    const reader = new ThinkingReader(prompt.thinking);
    reader.push(request.begun);
    const { sampling, maxTokens } = request;
    const generation = session.generate({ ...sampling, maxTokens, stop: [...prompt.stop], signal });
    let answer = request.begun;
    for await (const piece of generation) {
      answer += piece;
      send({ ...reader.push(piece), raw: piece });
    }
    const rest = reader.finish();
    if (rest.text !== "" || rest.thought !== "") send({ ...rest, raw: "" });
    const result = await generation.result;
    if (result.finishReason === "stop" && request.begun === "") {
      const next = chatPrompt(model, [...messages, { role: "assistant", content: answer }], {
        format: format.name,
        thinking,
      });
      await keepAnswer(session, prompt.pieces, next.pieces, model.tokenizer.decode(result.tokens), context);
    }
    return {
      reason: result.finishReason,
      generatedTokens: result.generatedTokens,
      tokensPerSecond: result.decodeTokensPerSecond,
      promptTokens,
      reusedTokens: known?.snapshot.position ?? 0,
    };
  } finally {
    await session.dispose();
  }
}

/**
 * Keeps the state after an answer, where what the model has read is what the next prompt begins with: the end of an answer is often one
 * token with what follows.
 */
async function keepAnswer(
  session: Session,
  before: readonly string[],
  next: readonly string[],
  read: string,
  { loaded }: Context<ChatPiece>,
): Promise<void> {
  const answer = next[before.length];
  const isSame = before.every((piece, i) => next[i] === piece);
  if (!isSame || answer === undefined || !answer.startsWith(read)) return;
  await session.read(answer.slice(read.length));
  loaded.states.add(next.slice(0, before.length + 1), await session.snapshot());
}
