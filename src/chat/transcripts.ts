// Formats in which a conversation is a transcript: "<name>: <text>" and a blank line for each message.
//
// Pile and Raven: ChatRWKV's prompts (https://github.com/BlinkDL/ChatRWKV, v2/prompt). World: the same, chat.py. G1: the templates of
// the G1 series in https://github.com/BlinkDL/RWKV-LM, which clean what systems and users say, and not what the assistant does.

import { OptionError } from "../errors.js";
import type { ChatFormat } from "./chat-format.js";
import { trimmedText, withoutBlankLines } from "./messages.js";

interface Transcript {
  readonly user: string;
  readonly assistant: string;
  readonly opening?: string;
  readonly thinks?: boolean;
  /** Whether answers may have blank lines, so that only the next turn ends them. */
  readonly longAnswers?: boolean;
  readonly stop: readonly string[];
  readonly instruction: ChatFormat["instruction"];
}

function transcript(given: Transcript): ChatFormat {
  const { user, assistant, opening = "", thinks = false, longAnswers = false, stop, instruction } = given;
  const names = { system: "System", user, assistant };
  // As a turn begins, in some formats without a blank line before it.
  const turn = new RegExp(`\\n(?=(?:${Object.values(names).join("|")}):)`, "g");
  return {
    thinks,
    opening,
    message({ role, content }, { remark = "" } = {}) {
      if (role === "tool")
        throw new OptionError("messages", role, 'format "function_calling" for the outputs of tools');
      const cleaned = role === "assistant" && longAnswers ? trimmedText(content) : withoutBlankLines(content);
      const text = cleaned.replace(turn, "\n ");
      return `${names[role]}:${text === "" ? "" : ` ${text}`}${role === "user" ? remark : ""}\n\n`;
    },
    separator: "\n\n",
    cue: `${assistant}:`,
    thinkingCue: `${assistant}: <think`,
    noThought: "></think",
    stop,
    instruction,
  };
}

/** ChatRWKV's command +i, of the Alpaca data. */
function alpacaInstruction(instruction: string, input?: string) {
  const part = (name: string, text: string) => `# ${name}:\n${withoutBlankLines(text)}\n\n`;
  const text =
    `Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n` +
    `${part("Instruction", instruction)}${input ? part("Input", input) : ""}# Response:\n`;
  return { text, stop: ["\n\n# Instruction:"] };
}

/** Later World models: ChatRWKV, API_DEMO_WORLD. */
function worldInstruction(instruction: string, input?: string) {
  const part = (name: string, text: string) => `${name}: ${withoutBlankLines(text)}\n\n`;
  const text = `${part("Instruction", instruction)}${input ? part("Input", input) : ""}Response:`;
  return { text, stop: ["\n\nInstruction:", "\n\nUser:"] };
}

/** The text of messages that set the scene for models which know nothing of assistants. */
const pileOpening =
  "\nThe following is a conversation between a curious user and a helpful, friendly bot. The bot answers every question " +
  "in detail, and says so when it does not know.\n\n" +
  "User: Hello, can you tell me what a river is?\n\n" +
  "Bot: A river is a stream of fresh water that flows towards the sea, a lake or another river.\n\n";

const blankLine = "\n\n";

/** Models trained on the Pile know conversations as transcripts; an opening sets the scene. */
export const pile: ChatFormat = transcript({
  user: "User",
  assistant: "Bot",
  opening: pileOpening,
  stop: [blankLine, "\nUser:"],
  instruction: alpacaInstruction,
});

/** Raven models were tuned on dialogues of Bob and Alice. */
export const raven: ChatFormat = transcript({
  user: "Bob",
  assistant: "Alice",
  stop: [blankLine, "\nBob:"],
  instruction: alpacaInstruction,
});

/** World models were tuned on dialogues of User and Assistant, in which an answer has no blank line. */
export const world: ChatFormat = transcript({
  user: "User",
  assistant: "Assistant",
  stop: [blankLine, "\nUser:"],
  instruction: worldInstruction,
});

/** G1 models write longer answers, and think before them. */
export const g1: ChatFormat = transcript({
  user: "User",
  assistant: "Assistant",
  thinks: true,
  longAnswers: true,
  stop: ["\n\nUser:"],
  instruction: worldInstruction,
});

/** The style "assistant" of the template of later G1 models. */
export const assistant: ChatFormat = transcript({
  user: "User",
  assistant: "Assistant",
  thinks: true,
  longAnswers: true,
  stop: ["\nUser:"],
  instruction: worldInstruction,
});
