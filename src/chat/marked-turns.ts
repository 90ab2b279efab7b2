// Formats of later G1 models in which marks, and not blank lines, end a message, so that blank lines stay: "bot", and
// "function_calling" with its headings. Marks in what is said are changed, so that no text ends its turn. Source: the styles of rwkv_chat_template.jinja (rwkv-rs/transformers-rwkv, temp/).

import { OptionError } from "../errors.js";
import type { ChatFormat } from "./chat-format.js";
import { type ChatTool, type ToolCall, trimmedText } from "./messages.js";
import { world } from "./transcripts.js";

const flower = "✿";

/** User✿ .. ✿ and Bot✿ .. ✿, a line each. */
export const bot: ChatFormat = {
  thinks: true,
  opening: "",
  message({ role, content }, { remark = "" } = {}) {
    if (role === "tool") throw new OptionError("messages", role, 'format "function_calling" for the outputs of tools');
    const name = { system: "System", user: "User", assistant: "Bot" }[role];
    const text = trimmedText(content).replaceAll(flower, "❀");
    return `${name}${flower}${text}${role === "user" ? remark : ""}${flower}\n`;
  },
  separator: `${flower}\n`,
  cue: `Bot${flower}`,
  thinkingCue: `Bot${flower}<think`,
  noThought: "></think",
  stop: [flower],
  instruction: world.instruction,
};

const headings = { system: "System", user: "User", assistant: "Assistant", tool: "Tool Output" } as const;
const heading = new RegExp(`^(?=### (?:${Object.values(headings).join("|")}))`, "gm");

/** Headings, and tools: what there is, what the assistant calls, and what came of it, all in JSON. */
export const functionCalling: ChatFormat = {
  thinks: true,
  opening: "",
  message({ role, content, toolCalls = [] }, { tools = [], remark = "" } = {}) {
    const said = role === "tool" ? fenced(jsonOf(content)) : trimmedText(content).replace(heading, " ");
    const parts = [
      `### ${headings[role]}`,
      ...(said === "" ? [] : [role === "user" ? said + remark : said]),
      ...(role === "system" ? toolTexts(tools) : []),
      ...toolCalls.map(callText),
    ];
    return `${parts.join("\n")}\n`;
  },
  separator: "\n",
  cue: "### Assistant\n",
  thinkingCue: "### Assistant\n<think",
  noThought: "></think",
  stop: ["\n### User", "\n### Tool Output"],
  instruction: world.instruction,
};

/** What a call of a tool begins with. */
export const toolCallMark = "**Tool Call:**";
/** What stands between that and the call's JSON. */
export const toolCallFence = "\n```json\n";
/** What ends it. JSON has no line breaks within its strings. */
export const toolCallEnd = "\n```";

function toolTexts(tools: readonly ChatTool[]): string[] {
  if (tools.length === 0) return [];
  return [
    ...tools.flatMap(({ name, description, parameters }) => [
      `### \`${name}\``,
      ...(description ? [`**Description:** ${description}`] : []),
      `**Parameters:**\n${fenced(parameters)}`,
    ]),
    "To call one of these tools, write exactly this format:",
    `${toolCallMark}${toolCallFence}{"name": "tool_name", "arguments": {"key": "value"}}${toolCallEnd}`,
    "Do not invent tool call IDs or write tool outputs yourself.",
  ];
}

function callText({ name, arguments: values }: ToolCall): string {
  return `${toolCallMark}\n${fenced({ name, arguments: values })}`;
}

function fenced(value: unknown): string {
  return `\`\`\`json\n${JSON.stringify(value, null, 2)}\n\`\`\``;
}

/** What a tool gave: JSON as that, anything else as a text. */
function jsonOf(content: string): unknown {
  try {
    return JSON.parse(content);
  } catch {
    return content;
  }
}

const callForm = /\*\*Tool Call:\*\*\s*```(?:json)?\s*\n([\s\S]*?)\n```/g;

/**
 * The calls of tools in an answer of the format "function_calling".
 *
 * @param answer the text of an answer, without its thoughts
 * @returns the calls that are JSON of the right form, and the text without them
 */
export function readToolCalls(answer: string): { text: string; toolCalls: ToolCall[] } {
  const toolCalls: ToolCall[] = [];
  const text = answer.replace(callForm, (whole: string, json: string) => {
    const call = jsonOf(json) as Partial<ToolCall> | string | null;
    if (typeof call !== "object" || typeof call?.name !== "string") return whole;
    toolCalls.push({ name: call.name, arguments: call.arguments ?? {} });
    return "";
  });
  return { text: text.trim(), toolCalls };
}
