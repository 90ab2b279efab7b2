// A conversation: its session, saved states to go back to, and texts that are asked for beside it.

import type { ChatFormat, Thinking } from "../chat/chat-format.js";
import { cueOf, remarkOn } from "../chat/chat-prompt.js";
import { ThinkingReader } from "../chat/thinking-reader.js";
import type { GenerationResult } from "../generation/generation-progress.js";
import type { Model } from "../generation/model.js";
import type { Session } from "../generation/session.js";
import { writeFileAtomically } from "../platform/node/file-writer.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { AnswerPrinter } from "./answer-printer.js";
import { note } from "./terminal.js";

/** How answers are made. */
export interface ConversationOptions {
  /** What the model is told before the conversation. */
  readonly system: string | undefined;
  /** The state that the conversation, and every text beside it, begins with; by default none. */
  readonly state: Uint8Array | undefined;
  readonly thinking: Thinking;
  readonly showsThoughts: boolean;
  maxTokens(thinking: Thinking): number;
  sampling(thinking: Thinking): SamplingOptions;
}

/** How often an empty answer is generated anew, since some models tend to end an answer before it has begun. */
const mostAttempts = 3;
/** How many turns /undo can go back, at most, and how many bytes their states may take. */
const maxHistory = 100;
const maxHistoryBytes = 2 ** 28;

/** Where a conversation is. */
interface Place {
  /** What must be read before the next turn, after an answer. */
  readonly separator: string;
  /** What was read of that and of the next turn: the text that ended the answer. */
  readonly ahead: string;
  /** The last answer, and the state that it began with. */
  readonly answer?: { readonly before: Uint8Array; readonly text: string };
}

const beginning: Place = { separator: "", ahead: "" };

/** What is to be written, and how it ends. */
interface Task {
  readonly stop: readonly string[];
  /** How the prompt ended, where thoughts are told from the answer; a free text has none. */
  readonly thinking?: Thinking;
  readonly signal: AbortSignal;
}

export class Conversation {
  thinking: Thinking;
  showsThoughts: boolean;
  readonly #model: Model;
  readonly #format: ChatFormat;
  readonly #options: ConversationOptions;
  /** Each turn: where the conversation was before it, and what was said. */
  #history: { place: Place; before: Uint8Array; message: string }[] = [];
  /** Whether nothing was read into the state that conversations begin with. */
  readonly #beginsAnew: boolean;
  #session: Session;
  #place: Place = beginning;
  #writing: AbortController | undefined;
  /** Writes the last answer or text again. */
  #again: (() => Promise<void>) | undefined;
  #replies = 0;

  constructor(model: Model, format: ChatFormat, options: ConversationOptions) {
    this.#model = model;
    this.#format = format;
    this.#options = options;
    this.#session = model.session(options.state);
    this.#beginsAnew = this.#session.position === 0;
    this.thinking = options.thinking;
    this.showsThoughts = options.showsThoughts;
  }

  async reset(): Promise<void> {
    this.#replace(this.#model.session(this.#options.state));
    this.#history = [];
    this.#again = undefined;
    const opening = this.#opening();
    if (opening) await this.#session.read(opening);
  }

  /** Stops the message or answer in progress. @returns false if there is none */
  stop(): boolean {
    if (!this.#writing) return false;
    this.#writing.abort();
    return true;
  }

  async say(message: string): Promise<void> {
    this.#history.push({ place: this.#place, before: await this.#session.save(), message });
    const most = Math.floor(maxHistoryBytes / this.#model.info.stateBytes);
    if (this.#history.length > Math.max(1, Math.min(maxHistory, most))) this.#history.shift();
    this.#again = () => this.#sayAgain();
    await this.#write(async (signal) => {
      try {
        await this.#read(this.#turn(message), signal);
        await this.#answer(signal);
      } catch (error) {
        this.undo(); // a turn that was read in part must not stay
        throw error;
      }
    });
  }

  async #sayAgain(): Promise<void> {
    const last = this.#history.at(-1);
    if (!last) return note("(nothing to answer again)");
    this.undo();
    await this.say(last.message);
  }

  /** Answers a question that knows and leaves nothing of the conversation. */
  async ask(question: string): Promise<void> {
    const { stop } = this.#format;
    await this.#beside(() => this.#opening() + this.#turn(question), { stop, thinks: true });
  }

  /** Carries out an instruction; what follows a blank line is its input. */
  async instruct(text: string): Promise<void> {
    const [instruction = "", input] = text.split(/\n[^\S\n]*\n([\s\S]*)/);
    const prompt = this.#format.instruction(instruction, input);
    await this.#beside(() => prompt.text, { stop: prompt.stop, thinks: true, mode: "auto" });
  }

  /** Continues a text freely. */
  async generate(text: string): Promise<void> {
    await this.#beside(() => text, { stop: [], thinks: false });
  }

  async retry(): Promise<void> {
    if (!this.#again) return note("(nothing to answer again)");
    await this.#again();
  }

  undo(): boolean {
    const last = this.#history.pop();
    if (!last) return false;
    this.#replace(this.#model.session(last.before), last.place);
    return true;
  }

  async save(path: string): Promise<void> {
    await this.#read("");
    const bytes = await this.#session.save();
    await writeFileAtomically(path, (file) => file.append(bytes));
  }

  async load(path: string): Promise<void> {
    this.#replace(this.#model.session(await this.#model.readState(path)));
    this.#history = [];
    this.#again = undefined;
  }

  #opening(): string {
    const { system } = this.#options;
    const told = system === undefined ? "" : this.#format.message({ role: "system", content: system });
    return (this.#beginsAnew ? this.#format.opening : "") + told;
  }

  /** The text of a user's turn, up to where the assistant's begins. */
  #turn(message: string): string {
    const said = this.#format.message({ role: "user", content: message }, { remark: remarkOn(this.thinking) });
    return said + cueOf(this.#format, this.thinking);
  }

  /** Reads what separates the next turn from the last answer, and this much of it. */
  async #read(turn: string, signal?: AbortSignal): Promise<void> {
    const { separator, ahead, answer } = this.#place;
    let text = separator + turn;
    if (text.startsWith(ahead)) text = text.slice(ahead.length);
    else if (answer) {
      // The answer ended in another text than the one that follows it, which the model has read.
      this.#replace(this.#model.session(answer.before));
      text = answer.text + text;
    }
    if (text) await this.#session.read(text, { ...(signal && { signal }) });
    this.#place = beginning;
  }

  async #answer(signal: AbortSignal): Promise<void> {
    const { separator, stop } = this.#format;
    const before = await this.#session.save();
    const task = { stop, thinking: this.thinking, signal };
    let { result, isEmpty } = await this.#stream(this.#session, task);
    for (let attempt = 1; isEmpty && attempt < mostAttempts; attempt++) {
      this.#replace(this.#model.session(before));
      ({ result, isEmpty } = await this.#stream(this.#session, task));
    }
    process.stdout.write("\n");
    if (isEmpty) note("(the model gives an empty answer; /retry asks again)");
    const ahead = typeof result.stop === "string" ? result.stop : "";
    this.#place = { separator, ahead, answer: { before, text: result.text } };
  }

  /** Writes a text in a session of its own. @param mode how the prompt ends; by default as in the conversation */
  async #beside(
    prompt: () => string,
    { stop, thinks, mode }: { stop: readonly string[]; thinks: boolean; mode?: Thinking },
  ): Promise<void> {
    this.#again = () => this.#beside(prompt, { stop, thinks, ...(mode && { mode }) });
    await this.#write(async (signal) => {
      const session = this.#model.session(this.#options.state);
      try {
        await session.read(prompt(), { signal });
        await this.#stream(session, { stop, signal, ...(thinks && { thinking: mode ?? this.thinking }) });
        process.stdout.write("\n");
      } finally {
        await session.dispose();
      }
    });
  }

  /** Does work that Ctrl-C ends. */
  async #write(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.#writing = new AbortController();
    const { signal } = this.#writing;
    try {
      await work(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      note("(stopped before the message was read; it is forgotten)");
    } finally {
      this.#writing = undefined;
    }
  }

  /** Generates, and prints what is generated. */
  async #stream(
    session: Session,
    { stop, thinking, signal }: Task,
  ): Promise<{ result: GenerationResult; isEmpty: boolean }> {
    const mode = thinking ?? "auto";
    const { seed, ...sampling } = this.#options.sampling(mode);
    const maxTokens = this.#options.maxTokens(mode);
    const generation = session.generate({
      ...sampling,
      // A new seed for every answer, so that /retry gives a different one.
      ...(seed !== undefined && { seed: seed + this.#replies++ }),
      maxTokens,
      stop,
      signal,
    });
    const reader = thinking && new ThinkingReader(thinking);
    const printer = new AnswerPrinter(this.showsThoughts);
    for await (const piece of generation) printer.print(reader ? reader.push(piece) : { thought: "", text: piece });
    if (reader) printer.print(reader.finish());
    const result = await generation.result;
    printer.finish();
    if (reader && printer.isEmpty && result.finishReason === "length") {
      note(`(cut off after ${maxTokens} tokens, before the answer; --max-tokens allows more)`);
    }
    return { result, isEmpty: printer.isEmpty && result.finishReason === "stop" };
  }

  #replace(session: Session, place: Place = beginning): void {
    void this.#session.dispose();
    this.#session = session;
    this.#place = place;
  }
}
