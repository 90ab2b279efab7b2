// /v1/messages and /v1/messages/count_tokens: Anthropic's API of conversations.

import { message, messageEvent, tokenCount } from "../answer-schemas/message.js";
import { streamedAnswer, wholeAnswer } from "../answers.js";
import { messageStream, wholeMessage } from "../anthropic/answer.js";
import { messageErrors } from "../anthropic/errors.js";
import { answerRequestOf, conversationOf, countBody, type MessagesBody, messagesBody } from "../anthropic/request.js";
import { startAnswers } from "../chat-answers.js";
import { conversationPrompt } from "../chat-messages.js";
import { tokensOf } from "../inference.js";
import { type Call, type Route, withBody } from "../route.js";
import type { Services } from "../services.js";
import { startOf } from "../starting-state.js";
import { checkMaxTokens } from "../token-limit.js";
import { toolPlan } from "../tools.js";

export function messages(services: Services): Route[] {
  const { served, prompts } = services;
  return [
    withBody({
      method: "post",
      path: "/v1/messages",
      summary: "Answer a conversation, as Anthropic's API does",
      operation: "chat",
      body: messagesBody,
      answer: message,
      events: messageEvent,
      errors: messageErrors,
      handle: (call) => answer(services, call),
    }),
    withBody({
      method: "post",
      path: "/v1/messages/count_tokens",
      summary: "Count the tokens of a conversation",
      body: countBody,
      answer: tokenCount,
      errors: messageErrors,
      handle: async ({ body, owner }) => {
        served.check(body.model);
        const conversation = conversationOf(body);
        const start = await startOf(services, owner, body.state);
        const { pieces } = conversationPrompt(conversation, services, start, toolPlan(conversation)?.tools);
        return Response.json({ input_tokens: tokensOf([await prompts.ofPieces(pieces, start)]) });
      },
    }),
  ];
}

async function answer(services: Services, call: Call<MessagesBody>): Promise<Response> {
  const { body, owner, signal } = call;
  const { served, options } = services;
  served.check(body.model);
  const maxTokens = checkMaxTokens("max_tokens", body.max_tokens, options.limits.maxTokens);
  const beginning = { start: await startOf(services, owner, body.state) };
  const answers = await startAnswers(services, answerRequestOf(body), { owner, maxTokens, beginning, signal });
  if (!body.stream) return wholeAnswer(call, answers.run, wholeMessage(served.id, answers));
  return streamedAnswer(call, answers.run, messageStream(served.id, answers), options.limits, {
    areNamed: true,
    last: "",
  });
}
