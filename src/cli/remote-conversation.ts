// A conversation with a model that a server has, over OpenAI's API: rwkv serve, or any other.

import { EventSourceParserStream } from "eventsource-parser/stream";
import type { Thinking } from "../chat/chat-format.js";
import { RwkvError } from "../errors.js";
import { AnswerPrinter } from "./answer-printer.js";
import { note } from "./terminal.js";

/** A server, and how its answers are made. */
export interface RemoteOptions {
  /** Where the server is, with or without /v1. */
  readonly url: string;
  readonly apiKey: string | undefined;
  /** The model's name there; by default the first that the server lists. */
  readonly model: string | undefined;
  readonly system: string | undefined;
  readonly thinking: Thinking;
  readonly showsThoughts: boolean;
  /** Further fields of requests. */
  readonly fields: Readonly<Record<string, unknown>>;
}

interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** What is used of an event of a stream: a piece of a chat's answer, or of a text. */
interface Event {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null; readonly reasoning_content?: string | null };
    readonly text?: string;
    readonly finish_reason?: string | null;
  }[];
  readonly error?: { readonly message?: string };
}

/** What a mode of thinking is called in requests; "auto" leaves it to the server. */
const efforts: Readonly<Record<Thinking, string | undefined>> = {
  off: "none",
  short: "low",
  on: "medium",
  long: "high",
  auto: undefined,
};

export class RemoteConversation {
  thinking: Thinking;
  showsThoughts: boolean;
  readonly #base: string;
  readonly #options: RemoteOptions;
  /** The model's name on the server. */
  readonly model: string;
  #messages: readonly Message[] = [];
  #writing: AbortController | undefined;
  /** Writes the last answer or text again. */
  #again: (() => Promise<void>) | undefined;

  private constructor(base: string, model: string, options: RemoteOptions) {
    this.#base = base;
    this.model = model;
    this.#options = options;
    this.thinking = options.thinking;
    this.showsThoughts = options.showsThoughts;
  }

  /**
   * Finds a server and its model.
   *
   * @throws RwkvError that says why there is none
   */
  static async open(options: RemoteOptions): Promise<RemoteConversation> {
    const base = baseOf(options.url);
    const answer = await request(`${base}/models`, { headers: headersOf(options.apiKey) });
    const { data } = (await answer.json().catch(() => ({}))) as { data?: { id?: unknown }[] };
    const model = options.model ?? data?.[0]?.id;
    if (typeof model !== "string")
      throw new RwkvError(`${base}/models: expected a list of models: is this a server of OpenAI's API?`);
    return new RemoteConversation(base, model, options);
  }

  reset(): void {
    this.#messages = [];
    this.#again = undefined;
  }

  /** Stops the answer in progress. @returns false if there is none */
  stop(): boolean {
    if (!this.#writing) return false;
    this.#writing.abort();
    return true;
  }

  async say(message: string): Promise<void> {
    const before = this.#messages;
    const asked: Message[] = [...before, { role: "user", content: message }];
    this.#again = () => {
      this.#messages = before;
      return this.say(message);
    };
    const answer = await this.#write("chat/completions", { messages: this.#withSystem(asked) });
    if (answer !== undefined) this.#messages = [...asked, { role: "assistant", content: answer }];
  }

  /** Answers a question that knows and leaves nothing of the conversation. */
  async ask(question: string): Promise<void> {
    this.#again = () => this.ask(question);
    await this.#write("chat/completions", { messages: this.#withSystem([{ role: "user", content: question }]) });
  }

  /** Continues a text freely. */
  async generate(text: string): Promise<void> {
    this.#again = () => this.generate(text);
    await this.#write("completions", { prompt: text });
  }

  async retry(): Promise<void> {
    if (!this.#again) return note("(nothing to answer again)");
    await this.#again();
  }

  /** Forgets the last message and its answer. @returns false if there is none */
  undo(): boolean {
    if (this.#messages.length === 0) return false;
    this.#messages = this.#messages.slice(0, -2);
    return true;
  }

  #withSystem(messages: readonly Message[]): readonly Message[] {
    const { system } = this.#options;
    return system === undefined ? messages : [{ role: "system", content: system }, ...messages];
  }

  /** Prints an answer while it comes. @returns its text; undefined where it was stopped before the first piece */
  async #write(path: string, wanted: object): Promise<string | undefined> {
    this.#writing = new AbortController();
    const { signal } = this.#writing;
    const printer = new AnswerPrinter(this.showsThoughts);
    const effort = path === "chat/completions" ? efforts[this.thinking] : undefined;
    const body = { model: this.model, ...this.#options.fields, ...(effort && { reasoning_effort: effort }), ...wanted };
    let text: string | undefined;
    let end: string | null | undefined;
    try {
      for await (const { choices: [choice] = [], error } of this.#events(path, body, signal)) {
        if (error) throw new RwkvError(`the server: ${error.message}`);
        const piece = choice?.delta?.content ?? choice?.text ?? "";
        printer.print({ thought: choice?.delta?.reasoning_content ?? "", text: piece });
        text = (text ?? "") + piece;
        end = choice?.finish_reason ?? end;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
      if (text === undefined) note("(stopped before the answer; the message is forgotten)");
    } finally {
      this.#writing = undefined;
      printer.finish();
      if (text !== undefined) process.stdout.write("\n");
    }
    if (end === "length" && printer.isEmpty) note("(cut off before the answer; --max-tokens allows more)");
    return text;
  }

  async *#events(path: string, body: object, signal: AbortSignal): AsyncGenerator<Event, void, void> {
    const url = `${this.#base}/${path}`;
    const headers = { ...headersOf(this.#options.apiKey), "Content-Type": "application/json" };
    const answer = await request(url, {
      method: "POST",
      headers,
      body: JSON.stringify({ ...body, stream: true }),
      signal,
    });
    if (!answer.body) throw new RwkvError(`${url}: expected a stream, found nothing`);
    const events = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    try {
      for await (const { data } of events) {
        if (data === "[DONE]") return;
        yield JSON.parse(data) as Event;
      }
    } catch (cause) {
      if (signal.aborted) throw cause;
      throw new RwkvError(`${url}: the answer broke off (${(cause as Error).message})`, { cause });
    }
  }
}

/** Where the API of a server is. */
function baseOf(url: string): string {
  const text = /^[a-z]+:\/\//i.test(url) ? url : `http://${url}`;
  if (!URL.canParse(text) || !/^https?:/i.test(text))
    throw new RwkvError(
      `--url: expected the address of a server, as http://127.0.0.1:8080, found ${JSON.stringify(url)}`,
    );
  const base = text.replace(/\/+$/, "");
  return base.endsWith("/v1") ? base : `${base}/v1`;
}

function headersOf(apiKey: string | undefined): Record<string, string> {
  return apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` };
}

/** Sends a request. @throws RwkvError where there is no server, or with what it says is wrong */
async function request(url: string, init: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(url, init);
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    const reason = (cause as Error & { cause?: NodeJS.ErrnoException }).cause;
    throw new RwkvError(`${url}: cannot be reached (${reason?.code ?? reason?.message ?? (cause as Error).message})`, {
      cause,
    });
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text.slice(0, 200);
  try {
    message = (JSON.parse(text) as { error?: { message?: string } }).error?.message ?? message;
  } catch {
    // The answer of something else than a server of this API is shown as it is.
  }
  throw new RwkvError(`${url}: status ${answer.status}: ${message}`);
}
