// Writes a conversation as the text that a model continues with its answer.

import { OptionError } from "../errors.js";
import { type ChatFormat, type Thinking, thinkingModes } from "./chat-format.js";
import { type ChatFormatName, type ChatModel, chatFormatFor, chatFormats } from "./formats.js";
import { type ChatMessage, type ChatTool, checkMessages, checkTools } from "./messages.js";

/** How a conversation is written. */
export interface ChatPromptOptions {
  /** The format; by default the one that suits the model. */
  readonly format?: ChatFormatName;
  /** Whether the model thinks before it answers. By default "on" where the format has that, else "auto". */
  readonly thinking?: Thinking;
  /** Tools that the model may call; the format is then "function_calling". */
  readonly tools?: readonly ChatTool[];
  /** Whether it goes on where a conversation was left, so that the format's opening is not written again. Default false. */
  readonly continues?: boolean;
}

/** A conversation as a model reads it. */
export interface ChatPrompt {
  readonly text: string;
  /**
   * The text in pieces: the opening, the messages (an answer in two, its name and what it says), and the cue. Where each is encoded alone,
   * what a conversation begins with has the same tokens whatever comes after it, so that states of it can be kept.
   */
  readonly pieces: readonly string[];
  /** Texts that end the answer, for the option `stop` of a generation. */
  readonly stop: readonly string[];
  /** How the answer begins, for a `ThinkingReader`. */
  readonly thinking: Thinking;
  readonly format: ChatFormatName;
}

/**
 * Writes a conversation in the format that a model knows. The model's answer continues the text.
 *
 * @param model the model that is to answer, from which the format is chosen where none is named
 * @throws OptionError for messages or options of a wrong form, and for what a format cannot say: thinking in one whose models do
 *   not think, tools in any but "function_calling"
 */
export function chatPrompt(
  model: ChatModel,
  messages: readonly ChatMessage[],
  options: ChatPromptOptions = {},
): ChatPrompt {
  checkMessages(messages);
  const { tools = [] } = options;
  checkTools(tools);
  const called = tools.length > 0 || messages.some(({ role, toolCalls }) => role === "tool" || toolCalls?.length);
  const name = options.format ?? (called ? "function_calling" : chatFormatFor(model));
  const format = formatNamed(name);
  if (called && name !== "function_calling") {
    throw new OptionError("format", name, '"function_calling" for messages with tools');
  }
  const thinking = resolveThinking(name, options.thinking);
  const explained = tools.length > 0 && !messages.some(({ role }) => role === "system");
  const said: readonly ChatMessage[] = explained ? [{ role: "system", content: "" }, ...messages] : messages;
  const asked = said.findLastIndex(({ role }) => role === "user");
  const texts = said.flatMap((message, i) => {
    const text = format.message(message, { tools, ...(i === asked && { remark: remarkOn(thinking) }) });
    const isAnswer = message.role === "assistant" && text.startsWith(format.cue);
    return isAnswer ? [format.cue, text.slice(format.cue.length)] : [text];
  });
  const opening = options.continues ? "" : format.opening;
  const pieces = [opening, ...texts, cueOf(format, thinking)].filter((piece) => piece !== "");
  return { text: pieces.join(""), pieces, stop: format.stop, thinking, format: name };
}

/** @throws OptionError for a name that no format has */
export function formatNamed(name: ChatFormatName): ChatFormat {
  if (Object.hasOwn(chatFormats, name)) return chatFormats[name];
  throw new OptionError("format", name, Object.keys(chatFormats).join(", "));
}

/** @throws OptionError for a mode that there is not, or that the format does not have */
export function resolveThinking(name: ChatFormatName, wanted?: Thinking): Thinking {
  const { thinks } = formatNamed(name);
  if (wanted === undefined) return thinks ? "on" : "auto";
  if (!thinkingModes.includes(wanted)) throw new OptionError("thinking", wanted, thinkingModes.join(", "));
  if (thinks || wanted === "auto" || wanted === "off") return thinks ? wanted : "auto";
  const thinking = Object.entries(chatFormats).filter(([, format]) => format.thinks);
  throw new OptionError(
    "thinking",
    wanted,
    `a format whose models think (${thinking.map(([one]) => one).join(", ")}); the format is ${name}`,
  );
}

/** What is put behind the last question, so that the thought before its answer is as long as wanted. */
export function remarkOn(thinking: Thinking): string {
  return { on: "", off: "", short: " (think a bit)", long: " (think a lot)", auto: "" }[thinking];
}

/** What the answer continues. */
export function cueOf({ cue, thinkingCue, noThought }: ChatFormat, thinking: Thinking): string {
  if (thinking === "auto") return cue;
  return thinking === "off" ? thinkingCue + noThought : thinkingCue;
}
