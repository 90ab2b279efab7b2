// From a conversation to its answers: what all APIs of conversations have in common. They differ in how they ask, and in how they tell.

import { createHash } from "node:crypto";
import type { ChatPrompt } from "../chat/chat-prompt.js";
import { type Grammar, oneOf, sequence, textUntil } from "../constraints/index.js";
import type { Constraint, GenerationOptions } from "../generation/generation-options.js";
import { type Conversation, conversationPrompt, defaultSampling, takesThought } from "./chat-messages.js";
import { type ChatPiece, chatPieces } from "./chat-pieces.js";
import type { GrammarSteps } from "./constraint-cache.js";
import { type ConstraintRequest, fieldError, requestedGrammar } from "./constraints.js";
import type { TextRun } from "./inference.js";
import type { PromptStart } from "./prompts.js";
import { requestedOptions, type SamplingRequest, withoutBans } from "./sampling-fields.js";
import type { Services } from "./services.js";
import { toolGrammar, toolPlan } from "./tools.js";

/** A conversation, and how its answers are to be written. */
export type AnswerRequest = Conversation & SamplingRequest & ConstraintRequest;

/** What is asked for beside that, in fields that each API has of its own. */
export interface AnswerWishes {
  /** What stands for the API key of whoever asks. */
  readonly owner: string;
  /** The most tokens of an answer; by default as many as the server allows. */
  readonly maxTokens?: number | undefined;
  /** How many of the most probable tokens are told in each place; by default none, nor the probability of the one written. */
  readonly logProbabilities?: number | undefined;
  /** Where the conversation goes on; by default it begins. */
  readonly beginning?: Beginning | undefined;
  readonly signal: AbortSignal;
}

/** A conversation that was left. */
export interface Beginning {
  readonly start: PromptStart | undefined;
  /** What is to be read before the next message. */
  readonly rest?: string;
  /** The tools that the model was told of, as `Answers.tools`. */
  readonly tools?: string | undefined;
}

/** Answers that are being written. */
export interface Answers {
  readonly run: TextRun;
  readonly pieces: AsyncGenerator<ChatPiece, void, void>;
  /** Tokens of thoughts so far. */
  readonly counts: { readonly reasoning: number };
  readonly generation: GenerationOptions;
  readonly format: ChatPrompt["format"];
  /** What stands for the tools that the model knows of now. */
  readonly tools: string | undefined;
}

/**
 * Reads a conversation, and begins its answers. Whoever starts them reads the pieces or ends the run.
 *
 * @throws ApiError for what cannot be asked for
 */
export async function startAnswers(
  services: Services,
  request: AnswerRequest,
  { owner, maxTokens, logProbabilities, beginning, signal }: AnswerWishes,
): Promise<Answers> {
  const { model, options, inference, prompts } = services;
  const { start, rest = "" } = beginning ?? {};
  const plan = toolPlan(request);
  const tools = plan ? digest(plan.tools) : beginning?.tools;
  // What the model was told before, it is not told again; and a conversation that had tools keeps their format.
  const isTold = tools !== undefined && tools === beginning?.tools;
  const prompt = conversationPrompt(request, services, start, isTold ? [] : plan?.tools);
  const constrain = await answerConstraint(services, request, prompt);
  const defaults = defaultSampling(services, prompt.thinking);
  const asked = requestedOptions(request, defaults, model.tokenizer, model.info.vocabulary);
  // What is held to a form ends with it. After calls of tools, and in the text before them, the next turn is an end, too.
  const formatStop = constrain && !plan ? [] : prompt.stop;
  const ownStop = plan?.isForced ? [] : (asked.stop ?? []);
  const generation = {
    ...(constrain ? withoutBans(asked) : asked),
    maxTokens: maxTokens ?? options.limits.maxTokens,
    stop: [...formatStop, ...ownStop],
    ...(constrain && { constrain }),
    ...(logProbabilities !== undefined && { logProbabilities }),
  };
  const encoded = await prompts.ofPieces([...(rest === "" ? [] : [rest]), ...prompt.pieces], start);
  const run = await inference.start({ owner, prompts: [encoded], choices: request.n ?? 1, generation, signal });
  const counts = { reasoning: 0 };
  const { thinking, format } = prompt;
  const pieces = chatPieces(services, run, { thinking, hasCalls: plan !== undefined, ownStop }, counts);
  return { run, pieces, counts, generation, format, tools };
}

/** Holds answers to what the request says of their form and of tools. A thought before them is free. */
async function answerConstraint(
  services: Services,
  request: AnswerRequest,
  { thinking, stop }: Pick<ChatPrompt, "thinking" | "stop">,
): Promise<Constraint | undefined> {
  const { response_format, grammar, regex, choice, structured_outputs } = request;
  const { tools, tool_choice, parallel_tool_calls } = request;
  const thinks = takesThought(thinking);
  const key = { response_format, grammar, regex, choice, structured_outputs, tools, tool_choice, parallel_tool_calls };
  function* make(): GrammarSteps {
    const form = requestedGrammar(request);
    const allowed = toolPlan(request) ? yield* toolGrammar(request, form, stop) : form;
    return allowed && afterThought(allowed, thinks);
  }
  try {
    return await services.constraints.of({ ...key, thinks, stop }, make);
  } catch (error) {
    throw fieldError("tools", error); // each part was small enough, or it was named; tools may be too much together
  }
}

function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("base64");
}

/** Models that were trained on conversations have white space before an answer, which its readers are not told of. */
function afterThought(answer: Grammar, thinks: boolean): Grammar {
  const white = oneOf("", " ", "\n", "\n\n");
  return thinks ? sequence(textUntil("</think>"), white, answer) : sequence(white, answer);
}
