// rwkv chat: a conversation in the terminal.

import { type Command, Option } from "commander";
import { RwkvError } from "../errors.js";
import type { GenerationResult } from "../generation/generation-progress.js";
import type { Model } from "../generation/model.js";
import type { Session } from "../generation/session.js";
import { writeFileAtomically } from "../platform/node/file-writer.js";
import { readBytes } from "../platform/node/files.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import {
  type ChatFormat,
  type ChatFormatName,
  chatFormatFor,
  chatFormats,
  turnEnds,
  turnText,
} from "./chat-formats.js";
import type { ChatInput } from "./chat-input.js";
import { chatInputs } from "./chat-terminal.js";
import { addModelOptions, describeModel, loadModel, type ModelOptions } from "./model-options.js";
import { addSamplingOptions, samplingOptions, wholeNumber } from "./option-parsers.js";
import { note } from "./terminal.js";

interface ChatOptions extends ModelOptions, SamplingOptions {
  format?: ChatFormatName;
  maxTokens: number;
}

const help = `/reset        forget everything
/retry        answer the last message again
/undo         forget the last message and its answer
/save FILE    save the conversation's state
/load FILE    go on from a saved state
/quit         leave (so does Ctrl-D); Ctrl-C stops an answer

Anything else is a message; //text sends /text. Write a message of several lines between """ and """, or with a
backslash at the end of each line but the last, or is pasted.`;

/** How often an empty answer is generated anew, since some models tend to end an answer before it has begun. */
const mostAttempts = 3;
/** How many turns /undo can go back. */
const maxHistory = 100;

export function addChat(program: Command): void {
  const command = program
    .command("chat")
    .description("chat with a model; /help lists the commands of a conversation")
    .addOption(
      new Option("--format <name>", "how turns are written (default: by the model)").choices(Object.keys(chatFormats)),
    )
    .option("-n, --max-tokens <n>", "the most tokens of an answer", wholeNumber(1), 500);
  addSamplingOptions(command, { temperature: 1, topP: 0.6, presencePenalty: 0.2, frequencyPenalty: 0.2 });
  addModelOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv chat --model RWKV-4-Raven-1B5-v12-Eng.pth --tokenizer 20B_tokenizer.json
  $ rwkv chat --model RWKV-4-World-0.4B.pth --tokenizer rwkv_vocab_v20230424.txt --temperature 0.8`,
    )
    .action(chat);
}

async function chat(options: ChatOptions): Promise<void> {
  const model = await loadModel(options);
  try {
    await converse(model, options);
  } finally {
    await model.dispose();
  }
}

async function converse(model: Model, options: ChatOptions): Promise<void> {
  note(describeModel(model));
  const conversation = new Conversation(model, chatFormats[options.format ?? chatFormatFor(model)], options);
  await conversation.reset();
  note("/help lists the commands; Ctrl-D leaves.");
  for await (const input of chatInputs(() => conversation.stop())) {
    if (input.kind === "command" && input.name === "quit") break;
    try {
      await handle(conversation, input);
    } catch (error) {
      if (!(error instanceof RwkvError)) throw error;
      note(`error: ${error.message}`);
    }
  }
}

async function handle(conversation: Conversation, input: ChatInput): Promise<void> {
  if (input.kind === "message") {
    if (/^\/\w+$/.test(input.text)) note("(sent as a message; /help lists the commands)");
    return conversation.say(input.text);
  }
  switch (input.name) {
    case "reset":
      await conversation.reset();
      return note("(forgotten)");
    case "retry":
      return conversation.retry();
    case "undo":
      return note(conversation.undo() ? "(undone)" : "(nothing to undo)");
    case "save":
      await conversation.save(input.argument);
      return note(`(saved to ${input.argument})`);
    case "load":
      await conversation.load(input.argument);
      return note(`(loaded ${input.argument})`);
    default:
      return note(help);
  }
}

/** A conversation: the session, and saved states to go back to. */
class Conversation {
  readonly #model: Model;
  readonly #format: ChatFormat;
  readonly #options: ChatOptions;
  /** Each turn: the state before it, and what was said. */
  #history: { before: Uint8Array; message: string }[] = [];
  #session: Session;
  /** What must be read before the next turn, if the last answer did not end by itself. */
  #separator = "";
  #reply: AbortController | undefined;
  #replies = 0;

  constructor(model: Model, format: ChatFormat, options: ChatOptions) {
    this.#model = model;
    this.#format = format;
    this.#options = options;
    this.#session = model.session();
  }

  async reset(): Promise<void> {
    this.#replace(this.#model.session());
    this.#history = [];
    if (this.#format.opening) await this.#session.read(this.#format.opening);
  }

  /** Stops the message or answer in progress. @returns false if there is none */
  stop(): boolean {
    if (!this.#reply) return false;
    this.#reply.abort();
    return true;
  }

  async say(message: string): Promise<void> {
    if (this.#separator) await this.#session.read(this.#separator);
    this.#separator = "";
    this.#history.push({ before: await this.#session.save(), message });
    if (this.#history.length > maxHistory) this.#history.shift();
    this.#reply = new AbortController();
    const { signal } = this.#reply;
    try {
      await this.#session.read(turnText(this.#format, message), { signal });
      await this.#answer(signal);
    } catch (error) {
      this.undo(); // a turn that was read in part must not stay
      if (!signal.aborted) throw error;
      note("(stopped before the message was read; it is forgotten)");
    } finally {
      this.#reply = undefined;
    }
  }

  async retry(): Promise<void> {
    const last = this.#history.at(-1);
    if (!last) return note("(nothing to answer again)");
    this.undo();
    await this.say(last.message);
  }

  undo(): boolean {
    const last = this.#history.pop();
    if (!last) return false;
    this.#replace(this.#model.session(last.before));
    return true;
  }

  async save(path: string): Promise<void> {
    if (!path) throw new RwkvError("/save needs a file name");
    if (this.#separator) await this.#session.read(this.#separator);
    this.#separator = "";
    const bytes = await this.#session.save();
    await writeFileAtomically(path, (file) => file.append(bytes));
  }

  async load(path: string): Promise<void> {
    if (!path) throw new RwkvError("/load needs a file name");
    this.#replace(this.#model.session(await readBytes(path)));
    this.#history = [];
  }

  async #answer(signal: AbortSignal): Promise<void> {
    const asked = await this.#session.save();
    let { text, finishReason, stop } = await this.#stream(signal);
    const isEmpty = () => text.trim() === "" && finishReason === "stop";
    for (let attempt = 1; isEmpty() && attempt < mostAttempts; attempt++) {
      this.#replace(this.#model.session(asked));
      ({ text, finishReason, stop } = await this.#stream(signal));
    }
    process.stdout.write("\n");
    if (isEmpty()) note("(the model gives an empty answer; /retry asks again)");
    const [blankLine, nextTurn] = turnEnds(this.#format);
    this.#separator = finishReason === "stop" && stop === blankLine ? "" : "\n\n";
    if (stop === nextTurn) {
      // The model had begun the user's turn, which was read as well.
      this.#replace(this.#model.session(asked));
      await this.#session.read(`${text}${blankLine}`);
    }
  }

  /** Generates an answer, and prints it without white space at its beginning. */
  async #stream(signal: AbortSignal): Promise<GenerationResult> {
    const { seed, maxTokens } = this.#options;
    const generation = this.#session.generate({
      ...samplingOptions(this.#options),
      // A new seed for every answer, so that /retry gives a different one.
      ...(seed !== undefined && { seed: seed + this.#replies++ }),
      maxTokens,
      stop: turnEnds(this.#format),
      signal,
    });
    let begun = false;
    for await (const piece of generation) {
      const shown: string = begun ? piece : piece.trimStart();
      begun ||= shown !== "";
      process.stdout.write(shown);
    }
    return generation.result;
  }

  #replace(session: Session): void {
    void this.#session.dispose();
    this.#session = session;
    this.#separator = "";
  }
}
