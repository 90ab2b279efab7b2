// rwkv chat --url: a conversation in the terminal with a model that a server has.

import type { Command } from "commander";
import type { Thinking } from "../chat/chat-format.js";
import { thinkingModes } from "../chat/chat-format.js";
import { RwkvError } from "../errors.js";
import { samplingPresets } from "../sampling/sampling-presets.js";
import { handleInputs, needed } from "./chat-commands.js";
import type { ChatInput } from "./chat-input.js";
import { type SamplingFlags, samplingOptions } from "./option-parsers.js";
import { RemoteConversation } from "./remote-conversation.js";
import { note } from "./terminal.js";

/** The options of `rwkv chat` that a conversation with a server takes. */
export interface RemoteChatOptions extends SamplingFlags {
  url: string;
  apiKey?: string;
  model?: string;
  system?: string;
  thinking?: Thinking;
  hideThinking?: boolean;
  maxTokens?: number;
}

const help = `/reset           forget everything
/retry           answer the last message again, or write the last text again
/undo            forget the last message and its answer
/ask TEXT        a single question, which knows and leaves nothing of the conversation
/generate TEXT   a free text that continues this one
/think MODE      think before answers: on, off, short, long, or auto as the server does; or show or hide thoughts
/quit            leave (so does Ctrl-D); Ctrl-C stops an answer

Anything else is a message; //text sends /text. /instruct, /save and /load need the model here, not on a server.`;

/** Options of `rwkv chat` that say how a model is loaded here, or what it reads. */
const onlyHere = ["tokenizer", "lora", "dtype", "backend", "threads", "format", "state"];

/** @throws RwkvError for options that a server cannot be told of, or where there is none */
export async function chatWithServer(options: RemoteChatOptions, command: Command): Promise<void> {
  const wrong = onlyHere.find((name) => command.getOptionValueSource(name) === "cli");
  if (wrong) throw new RwkvError(`--${wrong} is about a model that is loaded here; with --url the server has it`);
  const conversation = await RemoteConversation.open({
    url: options.url,
    apiKey: options.apiKey,
    model: options.model,
    system: options.system,
    thinking: options.thinking ?? "auto",
    showsThoughts: !options.hideThinking,
    fields: { ...requestedSampling(options, command), ...(options.maxTokens && { max_tokens: options.maxTokens }) },
  });
  note(`${conversation.model} at ${options.url}`);
  await handleInputs(
    () => conversation.stop(),
    (input) => handle(conversation, input),
  );
}

/** What was given of sampling, in the API's words. The server knows best what suits its model otherwise. */
function requestedSampling(options: RemoteChatOptions, command: Command): Record<string, unknown> {
  const all = samplingOptions(options, command);
  const isGiven = (name: string) =>
    command.getOptionValueSource(name) === "cli" || (options.preset && name in samplingPresets[options.preset]);
  const { bannedTokens = [], logitBias = {}, ...plain } = all;
  const fields = Object.entries(plain)
    .filter(([name]) => isGiven(name))
    .map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]);
  const biases = [
    ...Object.entries(logitBias).map(([id, bias]) => [Number(id), bias]),
    ...bannedTokens.map((id) => [id, false]),
  ];
  return { ...Object.fromEntries(fields), ...(biases.length > 0 && { logit_bias: biases }) };
}

async function handle(conversation: RemoteConversation, input: ChatInput): Promise<void> {
  if (input.kind === "message") {
    if (input.looksLikeCommand) note("(sent as a message; /help lists the commands)");
    return conversation.say(input.text);
  }
  const { name, argument } = input;
  switch (name) {
    case "reset":
      conversation.reset();
      return note("(forgotten)");
    case "retry":
      return conversation.retry();
    case "undo":
      return note(conversation.undo() ? "(undone)" : "(nothing to undo)");
    case "ask":
      return conversation.ask(needed(argument, "/ask needs a question"));
    case "generate":
      return conversation.generate(needed(argument, "/generate needs a text to continue"));
    case "think":
      return think(conversation, needed(argument, "/think needs a mode"));
    case "help":
      return note(help);
    default:
      throw new RwkvError(`/${name} needs the model here, not on a server`);
  }
}

function think(conversation: RemoteConversation, mode: string): void {
  if (mode === "show" || mode === "hide") conversation.showsThoughts = mode === "show";
  else if ((thinkingModes as readonly string[]).includes(mode)) conversation.thinking = mode as Thinking;
  else throw new RwkvError(`/think: expected ${thinkingModes.join(", ")}, show or hide, found ${mode}`);
  note(`(thinking is ${conversation.thinking}; thoughts are ${conversation.showsThoughts ? "shown" : "hidden"})`);
}
