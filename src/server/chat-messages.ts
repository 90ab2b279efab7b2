// Messages of OpenAI's chat, and how a conversation of them is written for the model.

import * as v from "valibot";
import type { Thinking } from "../chat/chat-format.js";
import { type ChatPrompt, chatPrompt, formatNamed } from "../chat/chat-prompt.js";
import { chatFormatFor } from "../chat/formats.js";
import type { ChatMessage, ChatTool, ToolCall } from "../chat/messages.js";
import { OptionError } from "../errors.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { samplingPresets } from "../sampling/sampling-presets.js";
import { invalidField } from "./errors.js";
import type { PromptStart } from "./prompts.js";
import { optional, text } from "./schema.js";
import type { Services } from "./services.js";

const textPart = v.object({ type: v.literal("text"), text: v.string() });
const content = v.union([v.string(), v.array(textPart)]);
const refusalPart = v.object({ type: v.literal("refusal"), refusal: v.string() });
const answerContent = v.union([v.string(), v.array(v.variant("type", [textPart, refusalPart]))]);
const toolCall = v.object({
  id: optional(v.string()),
  type: optional(v.literal("function")),
  function: v.object({ name: text(), arguments: v.string() }),
});

/** A tool's name, which the model is told and writes as it is. */
export const toolName = v.pipe(v.string(), v.regex(/^[\w.:/-]{1,128}$/));

/** The most tools of a request, as in OpenAI's API. */
export const maxTools = 128;

const tool = v.object({
  type: v.literal("function"),
  function: v.object({
    name: toolName,
    description: optional(v.string()),
    parameters: optional(v.record(v.string(), v.unknown())),
    strict: optional(v.boolean()),
  }),
});

const message = v.variant("role", [
  v.object({ role: v.picklist(["system", "developer", "user"]), content }),
  v.object({ role: v.literal("assistant"), content: optional(answerContent), tool_calls: optional(v.array(toolCall)) }),
  v.object({ role: v.literal("tool"), content, tool_call_id: optional(v.string()) }),
]);
type Message = v.InferOutput<typeof message>;

/** How much thought an answer is to have. */
export const effort = v.picklist(["none", "minimal", "low", "medium", "high", "xhigh", "max"]);

/** The fields of a conversation, to be spread into the schema of a body. */
export const conversationFields = {
  messages: v.pipe(v.array(message), v.minLength(1)),
  tools: optional(v.pipe(v.array(tool), v.maxLength(maxTools))),
  tool_choice: optional(
    v.union([
      v.picklist(["none", "auto", "required"]),
      v.object({ type: v.literal("function"), function: v.object({ name: text() }) }),
    ]),
  ),
  parallel_tool_calls: optional(v.boolean()),
  reasoning_effort: optional(effort),
  chat_template_kwargs: optional(v.object({ enable_thinking: optional(v.boolean()) })),
};

const conversationSchema = v.object(conversationFields);
export type Conversation = v.InferOutput<typeof conversationSchema>;

const efforts: Readonly<Record<NonNullable<Conversation["reasoning_effort"]>, Thinking>> = {
  none: "off",
  minimal: "off",
  low: "short",
  medium: "on",
  high: "long",
  xhigh: "long",
  max: "long",
};

/**
 * Writes a conversation for the model.
 *
 * @param start the state that it continues, if any
 * @param tools that the model is told of; undefined where it is to call none, which an empty array does not say
 * @throws ApiError for what its format cannot say
 */
export function conversationPrompt(
  conversation: Conversation,
  { model, options }: Services,
  start?: PromptStart,
  tools?: readonly ChatTool[],
): ChatPrompt {
  const messages = conversation.messages.map(chatMessage);
  const ownFormat = options.format ?? chatFormatFor(model);
  const hasCalls = tools !== undefined || messages.some(({ role, toolCalls }) => role === "tool" || toolCalls?.length);
  const format = hasCalls ? "function_calling" : ownFormat;
  // Clients that ask any model to think do not mean one that cannot; nor does one learn it with the format of tools.
  const thinking = formatNamed(ownFormat).thinks ? requestedThinking(conversation) : "auto";
  try {
    const continues = start !== undefined && start.snapshot.position > 0;
    return chatPrompt(model, messages, { format, continues, tools: tools ?? [], ...(thinking && { thinking }) });
  } catch (error) {
    if (error instanceof OptionError) throw invalidField("messages", error.message);
    throw error;
  }
}

/** The options of sampling that are recommended for a model, by whether it thinks, under those that the server was given. */
export function defaultSampling({ options }: Services, thinking: Thinking): SamplingOptions {
  const preset =
    thinking === "auto"
      ? samplingPresets.chat
      : takesThought(thinking)
        ? samplingPresets.thinking
        : samplingPresets.direct;
  return { ...preset, ...options.sampling };
}

/** Whether a prompt asks the model to think before it answers. */
export function takesThought(thinking: Thinking): boolean {
  return thinking === "on" || thinking === "short" || thinking === "long";
}

function requestedThinking({
  chat_template_kwargs: template,
  reasoning_effort: effort,
}: Conversation): Thinking | undefined {
  const asked = effort && efforts[effort];
  if (template?.enable_thinking === false) return "off";
  if (template?.enable_thinking === true) return asked === undefined || asked === "off" ? "on" : asked;
  return asked;
}

function chatMessage(given: Message, index: number): ChatMessage {
  const content = given.content === undefined ? "" : textOf(given.content);
  if (given.role === "assistant") {
    const toolCalls = (given.tool_calls ?? []).map((call, i) =>
      readToolCall(call, `messages[${index}].tool_calls[${i}]`),
    );
    return { role: "assistant", content, ...(toolCalls.length > 0 && { toolCalls }) };
  }
  return { role: given.role === "developer" ? "system" : given.role, content };
}

function textOf(given: v.InferOutput<typeof answerContent>): string {
  if (typeof given === "string") return given;
  return given.map((part) => (part.type === "refusal" ? part.refusal : part.text)).join("");
}

function readToolCall({ function: called }: v.InferOutput<typeof toolCall>, param: string): ToolCall {
  try {
    return { name: called.name, arguments: JSON.parse(called.arguments || "{}") };
  } catch {
    throw invalidField(`${param}.function.arguments`, "expected JSON");
  }
}
