// Tools that a request offers: what the model is told of them, and the grammar that calls of them follow, so that every call names a tool
// there is, with arguments that its parameters allow.

import { toolCallEnd, toolCallFence, toolCallMark } from "../chat/marked-turns.js";
import type { ChatTool } from "../chat/messages.js";
import { repeat } from "../constraints/expressions.js";
import { Grammar } from "../constraints/grammar.js";
import { jsonObject, jsonSchema, oneOf, sequence, textUntil, textWithout } from "../constraints/index.js";
import { OptionError } from "../errors.js";
import type { Conversation } from "./chat-messages.js";
import { withoutOption } from "./constraints.js";
import { invalidField } from "./errors.js";

/** The most characters of all tools as JSON. Grammars are made of them, which takes time and memory. */
const maxCharacters = 500_000;
/** The most calls in an answer. */
const maxCalls = 16;
/** What stands before a call after another. */
const between = oneOf("\n", "\n\n");

type Tool = NonNullable<Conversation["tools"]>[number]["function"];

/** What the model may and must do with tools. */
export interface ToolPlan {
  /** What it is told of. */
  readonly tools: readonly ChatTool[];
  /** Whether the answer is a call in any case. */
  readonly isForced: boolean;
}

/**
 * What a request says of tools; undefined where the model is to call none.
 *
 * @throws ApiError for tools of one name, or that are too long, and for a choice that is none of them
 */
export function toolPlan({ tools = [], tool_choice: choice = "auto" }: Conversation): ToolPlan | undefined {
  const names = tools.map((tool) => tool.function.name);
  const twice = names.findIndex((name, i) => names.indexOf(name) < i);
  if (twice >= 0) throw invalidField(`tools[${twice}].function.name`, `there is another tool ${names[twice]}`);
  if (typeof choice === "object" && !names.includes(choice.function.name)) {
    throw invalidField("tool_choice.function.name", `expected one of tools, found ${choice.function.name}`);
  }
  if (tools.length === 0 && choice === "required") throw invalidField("tool_choice", "expected tools beside it");
  if (tools.length === 0 || choice === "none") return undefined;
  const characters = JSON.stringify(tools).length;
  if (characters > maxCharacters) {
    throw invalidField("tools", `expected at most ${maxCharacters} characters of JSON, found ${characters}`);
  }
  return { tools: tools.map((tool) => chatTool(tool.function)), isForced: choice !== "auto" };
}

/**
 * The answers that a conversation with tools allows, made tool by tool.
 *
 * @param text the answers without a call that are allowed; undefined for all
 * @param stop texts that may end an answer after its calls
 * @throws ApiError for the parameters of a strict tool that cannot be held to
 */
export function* toolGrammar(
  conversation: Conversation,
  text: Grammar | undefined,
  stop: readonly string[],
): Generator<void, Grammar, void> {
  const { tools = [], tool_choice: choice = "auto", parallel_tool_calls: parallel = true } = conversation;
  const isNamed = typeof choice === "object";
  const callable = tools.map((tool, i) => ({ ...tool.function, at: `tools[${i}].function.parameters` }));
  const allowed = isNamed ? callable.filter(({ name }) => name === choice.function.name) : callable;
  const calls: Grammar[] = [];
  for (const tool of allowed) {
    calls.push(callGrammar(tool));
    yield;
  }
  const call = sequence(toolCallFence, oneOf(...calls), toolCallEnd);
  const more = new Grammar(
    repeat(sequence(between, toolCallMark, call).expression, 0, parallel && !isNamed ? maxCalls - 1 : 0),
    "tools",
  );
  const end = oneOf("", ...["", "\n"].flatMap((blank) => ["\n", ...stop].map((text) => blank + text)));
  const all = sequence(call, more, end);
  if (choice !== "auto") return sequence(toolCallMark, all);
  if (text) return oneOf(text, sequence(toolCallMark, all));
  return oneOf(textWithout(toolCallMark), sequence(textUntil(toolCallMark), all));
}

function callGrammar({ name, parameters, strict, at }: Tool & { readonly at: string }): Grammar {
  return sequence(`{"name": ${JSON.stringify(name)}, "arguments": `, argumentsGrammar(parameters, strict, at), "}");
}

/** Arguments as the parameters say. Where these cannot be held to and need not be, any object. */
function argumentsGrammar(parameters: Tool["parameters"], strict: boolean | undefined, at: string): Grammar {
  if (parameters === undefined) return jsonSchema({ type: "object", properties: {}, additionalProperties: false });
  try {
    return jsonSchema({ type: "object", ...parameters });
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    if (strict) throw invalidField(at, withoutOption(error));
    return jsonObject();
  }
}

function chatTool({ name, description, parameters = { type: "object", properties: {} } }: Tool): ChatTool {
  return { name, parameters, ...(description !== undefined && { description }) };
}
