// rwkv chat: a conversation in the terminal.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { type Command, Option } from "commander";
import { RwkvError } from "../errors.js";
import type { Model } from "../generation/model.js";
import type { Session } from "../generation/session.js";
import { writeFileAtomically } from "../platform/node/file-writer.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { type ChatFormat, type ChatFormatName, chatFormatFor, chatFormats, turnText } from "./chat-formats.js";
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
/quit         leave (so does Ctrl-D); Ctrl-C stops an answer`;

/** How many turns /undo can go back. */
const maxHistory = 100;

export function addChat(program: Command): void {
  const command = program
    .command("chat")
    .description("talk with a model; /help lists the commands of a conversation")
    .addOption(
      new Option("--format <name>", "how turns are written (default: by the model)").choices(Object.keys(chatFormats)),
    )
    .option("-n, --max-tokens <n>", "most tokens of an answer", wholeNumber(1), 500);
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
  note(describeModel(model));
  const conversation = new Conversation(model, chatFormats[options.format ?? chatFormatFor(model)], options);
  await conversation.reset();
  note("/help lists the commands; Ctrl-D leaves.");

  const terminal = createInterface({ input: process.stdin, output: process.stderr, prompt: "> " });
  const lines = terminal[Symbol.asyncIterator]();
  const interrupt = () => {
    if (!conversation.stop()) {
      note("\n(/quit or Ctrl-D leaves)");
      terminal.prompt();
    }
  };
  terminal.on("SIGINT", interrupt);
  process.on("SIGINT", interrupt);
  terminal.prompt();
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const text = line.value.trim();
    if (text === "/quit") break;
    try {
      if (text !== "") await handle(conversation, text);
    } catch (error) {
      if (!(error instanceof RwkvError)) throw error;
      note(`error: ${error.message}`);
    }
    terminal.prompt();
  }
  if (process.stdin.isTTY) note(""); // the shell's prompt begins on a line of its own
  terminal.close();
  process.off("SIGINT", interrupt);
  await model.dispose();
}

async function handle(conversation: Conversation, text: string): Promise<void> {
  const [, command, argument = ""] = /^\/(\S+)\s*(.*)$/.exec(text) ?? [];
  switch (command) {
    case undefined:
      return conversation.say(text);
    case "help":
      return note(help);
    case "reset":
      await conversation.reset();
      return note("(forgotten)");
    case "retry":
      return conversation.retry();
    case "undo":
      return note(conversation.undo() ? "(undone)" : "(nothing to undo)");
    case "save":
      await conversation.save(argument);
      return note(`(saved to ${argument})`);
    case "load":
      await conversation.load(argument);
      return note(`(loaded ${argument})`);
    default:
      return note(`unknown command /${command}\n${help}`);
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

  /** Stops the answer in progress; false if there is none. */
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
    await this.#session.read(turnText(this.#format, message));
    await this.#answer();
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
    const bytes = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
      throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
    });
    this.#replace(this.#model.session(bytes));
    this.#history = [];
  }

  async #answer(): Promise<void> {
    this.#reply = new AbortController();
    const { seed, maxTokens } = this.#options;
    const generation = this.#session.generate({
      ...samplingOptions(this.#options),
      // Another seed for every answer, so that /retry gives another one.
      ...(seed !== undefined && { seed: seed + this.#replies++ }),
      maxTokens,
      stop: "\n\n",
      signal: this.#reply.signal,
    });
    try {
      let first = true;
      for await (const piece of generation) {
        process.stdout.write(first ? piece.trimStart() : piece);
        first = false;
      }
      process.stdout.write("\n");
      const { finishReason, stop } = await generation.result;
      this.#separator = finishReason === "stop" && typeof stop === "string" ? "" : "\n\n";
    } finally {
      this.#reply = undefined;
    }
  }

  #replace(session: Session): void {
    void this.#session.dispose();
    this.#session = session;
    this.#separator = "";
  }
}
