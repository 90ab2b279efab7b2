// Answers of conversations.

import { type ChatMessage, type ChatPrompt, chatPrompt, type Session, ThinkingReader } from "rwkv";
import type { ChatPiece, ChatRequest, Ending } from "../protocol.js";
import { formatOfLoaded } from "./chat-format.js";
import type { Context } from "./worker.js";

/** How often an empty answer is written anew. */
const mostAttempts = 3;

export async function chat(request: ChatRequest, context: Context<ChatPiece>): Promise<Ending> {
  const { loaded, signal } = context;
  const { model, states } = loaded;
  const format = formatOfLoaded(loaded, request.format);
  const thinking = format.thinks ? (request.thinks ? "on" : "off") : "auto";
  const messages: readonly ChatMessage[] = request.messages;
  const prompt = chatPrompt(model, messages, { format: format.name, thinking });
  const pieces = request.begun === "" ? prompt.pieces : [...prompt.pieces, request.begun];
  const known = states.find(pieces);
  let session = model.session(known?.snapshot);
  try {
    for (let i = known?.length ?? 0; i < pieces.length; i++) {
      await session.read(pieces[i] as string, { signal });
      states.add(pieces.slice(0, i + 1), await session.snapshot());
    }
    const promptTokens = session.position;
    const before = await session.snapshot();
    let { answer, result } = await write(session, request, prompt, context);
    // Some models tend to end an answer before it has begun.
    for (let attempt = 1; attempt < mostAttempts && answer.trim() === "" && result.finishReason === "stop"; attempt++) {
      await session.dispose();
      session = model.session(before);
      ({ answer, result } = await write(session, request, prompt, context));
    }
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

/** Writes an answer, or the rest of one. */
async function write(
  session: Session,
  { begun, sampling, maxTokens }: ChatRequest,
  { thinking, stop }: ChatPrompt,
  { signal, send }: Context<ChatPiece>,
) {
  const reader = new ThinkingReader(thinking);
  reader.push(begun);
  const generation = session.generate({ ...sampling, maxTokens, stop: [...stop], signal });
  let answer = begun;
  for await (const piece of generation) {
    answer += piece;
    send({ ...reader.push(piece), raw: piece });
  }
  const rest = reader.finish();
  if (rest.text !== "" || rest.thought !== "") send({ ...rest, raw: "" });
  return { answer, result: await generation.result };
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
