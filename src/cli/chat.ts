// rwkv chat: a conversation in the terminal.

import { type Command, Option } from "commander";
import { type Thinking, thinkingModes } from "../chat/chat-format.js";
import { resolveThinking } from "../chat/chat-prompt.js";
import { type ChatFormatName, chatFormatFor, chatFormats } from "../chat/formats.js";
import type { Model } from "../generation/model.js";
import { samplingPresets } from "../sampling/sampling-presets.js";
import { handleInputs, needed } from "./chat-commands.js";
import type { ChatInput } from "./chat-input.js";
import { Conversation } from "./conversation.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import { addSamplingOptions, type SamplingFlags, samplingOptions, stateOption, wholeNumber } from "./option-parsers.js";
import { chatWithServer, type RemoteChatOptions } from "./remote-chat.js";
import { note } from "./terminal.js";

interface ChatOptions extends ModelOptions, SamplingFlags {
  url?: string;
  apiKey?: string;
  format?: ChatFormatName;
  thinking?: Thinking;
  hideThinking?: boolean;
  system?: string;
  state?: string;
  maxTokens?: number;
}

const help = `/reset           forget everything
/retry           answer the last message again, or write the last text again
/undo            forget the last message and its answer
/ask TEXT        a single question, which knows and leaves nothing of the conversation
/instruct TEXT   an instruction, in the form that models were trained on; what follows a blank line is its input
/generate TEXT   a free text that continues this one
/think MODE      think before answers: on, off, short, long or auto; or show or hide thoughts
/save FILE       save the conversation's state
/load FILE       continue from a saved state, or tuned ones
/quit            leave (so does Ctrl-D); Ctrl-C stops an answer

Anything else is a message; //text sends /text. Write a message or TEXT of several lines between """ and """, or with a
backslash at the end of each line but the last, or paste it.`;

/** The most tokens of an answer, and of one with a thought. */
const usualTokens = 500;
const thinkingTokens = 2000;

export function addChat(program: Command): void {
  const command = program
    .command("chat")
    .description("chat with a model; /help lists the commands of a conversation")
    .option(
      "--url <url>",
      "chat with a model of rwkv serve, or another server of OpenAI's API; --model is its name there",
    )
    .addOption(new Option("--api-key <key>", "the server's API key").env("RWKV_API_KEY"))
    .addOption(
      new Option("--format <name>", "how turns are written (default: by the model)").choices(Object.keys(chatFormats)),
    )
    .addOption(
      new Option("--thinking <mode>", "think before answers (default: on, where the format has it)").choices(
        thinkingModes,
      ),
    )
    .option("--hide-thinking", "do not show thoughts")
    .option("--system <text>", "what the model is told before the conversation")
    .addOption(stateOption())
    .option(
      "-n, --max-tokens <n>",
      `the most tokens of an answer (default: ${usualTokens}; ${thinkingTokens} with thoughts)`,
      wholeNumber(1),
    );
  addSamplingOptions(command, { temperature: 1, topP: 0.6, presencePenalty: 0.2, frequencyPenalty: 0.2 });
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Formats that think (g1, assistant, bot, function_calling) sample by the preset thinking, or direct without thoughts, and
others by the defaults above, unless a preset or options are given. Thoughts go to stderr.

Examples:
  $ rwkv chat --model RWKV-4-Raven-1B5-v12-Eng49%.pth --tokenizer 20B_tokenizer.json
  $ rwkv chat --model RWKV-4-World-0.4B.pth --tokenizer rwkv_vocab_v20230424.txt --temperature 0.8
  $ rwkv chat --url http://127.0.0.1:8080`,
    )
    .action(chat);
}

async function chat(options: ChatOptions, command: Command): Promise<void> {
  const { url } = options;
  if (url !== undefined) return chatWithServer({ ...options, url } satisfies RemoteChatOptions, command);
  const model = await loadModel(options);
  try {
    await converse(model, options, command);
  } finally {
    await model.dispose();
  }
}

async function converse(model: Model, options: ChatOptions, command: Command): Promise<void> {
  const name = options.format ?? chatFormatFor(model);
  note(`${describeModel(model)}; format ${name}`);
  const { thinks } = chatFormats[name];
  const conversation = new Conversation(model, chatFormats[name], {
    system: options.system,
    state: options.state === undefined ? undefined : await model.readState(options.state),
    thinking: resolveThinking(name, options.thinking),
    showsThoughts: !options.hideThinking,
    maxTokens: (thinking) => options.maxTokens ?? (takesThought(thinking) ? thinkingTokens : usualTokens),
    sampling: (thinking) => {
      const usual = takesThought(thinking) ? samplingPresets.thinking : samplingPresets.direct;
      return samplingOptions(options, command, thinks ? usual : undefined);
    },
  });
  await conversation.reset();
  await handleInputs(
    () => conversation.stop(),
    (input) => handle(conversation, input, name),
  );
}

function takesThought(thinking: Thinking): boolean {
  return thinking === "on" || thinking === "short" || thinking === "long";
}

async function handle(conversation: Conversation, input: ChatInput, format: ChatFormatName): Promise<void> {
  if (input.kind === "message") {
    if (input.looksLikeCommand) note("(sent as a message; /help lists the commands)");
    return conversation.say(input.text);
  }
  const { name, argument } = input;
  switch (name) {
    case "reset":
      await conversation.reset();
      return note("(forgotten)");
    case "retry":
      return conversation.retry();
    case "undo":
      return note(conversation.undo() ? "(undone)" : "(nothing to undo)");
    case "ask":
      return conversation.ask(needed(argument, "/ask needs a question"));
    case "instruct":
      return conversation.instruct(needed(argument, "/instruct needs an instruction"));
    case "generate":
      return conversation.generate(needed(argument, "/generate needs a text to continue"));
    case "think":
      return think(conversation, argument, format);
    case "save":
      await conversation.save(needed(argument, "/save needs a file name"));
      return note(`(saved to ${argument})`);
    case "load":
      await conversation.load(needed(argument, "/load needs a file name"));
      return note(`(loaded ${argument})`);
    default:
      return note(help);
  }
}

function think(conversation: Conversation, mode: string, format: ChatFormatName): void {
  if (mode === "show" || mode === "hide") conversation.showsThoughts = mode === "show";
  else conversation.thinking = resolveThinking(format, needed(mode, "/think needs a mode") as Thinking);
  note(`(thinking is ${conversation.thinking}; thoughts are ${conversation.showsThoughts ? "shown" : "hidden"})`);
}
