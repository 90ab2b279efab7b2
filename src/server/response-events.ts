// A response while it is being written: its items, and the events by which a stream tells of them. A response that is not streamed is the
// one that its last event has.

import type { ChatPiece } from "./chat-pieces.js";
import type { TokenLogprob } from "./token-text.js";

/** An item of a response's output. */
type Item =
  | {
      readonly id: string;
      readonly type: "message";
      readonly role: "assistant";
      readonly status: Status;
      readonly content: readonly OutputText[];
    }
  | {
      readonly id: string;
      readonly type: "reasoning";
      readonly status: Status;
      readonly summary: readonly [];
      readonly content: readonly ReasoningText[];
    }
  | {
      readonly id: string;
      readonly type: "function_call";
      readonly status: Status;
      readonly call_id: string;
      readonly name: string;
      readonly arguments: string;
    };
type Status = "in_progress" | "completed" | "incomplete";
interface OutputText {
  readonly type: "output_text";
  readonly text: string;
  readonly annotations: readonly [];
  readonly logprobs: readonly TokenLogprob[];
}
interface ReasoningText {
  readonly type: "reasoning_text";
  readonly text: string;
}

/** An event of a stream. */
export interface ResponseEvent {
  readonly type: string;
  readonly sequence_number: number;
  readonly response?: object;
}

/** An item that is being written. */
interface OpenItem {
  readonly id: string;
  readonly kind: Item["type"];
  /** Its text, or the arguments of a call. */
  text: string;
  /** What a call is of. */
  readonly call?: { readonly call_id: string; readonly name: string };
  readonly logprobs: TokenLogprob[];
}

const idPrefixes = { message: "msg", reasoning: "rs", function_call: "fc" } as const;
const textNames = { message: "output_text", reasoning: "reasoning_text" } as const;

/** Writes a response. */
export class ResponseWriter {
  readonly #response: object;
  readonly #newId: (prefix: string) => string;
  readonly #output: Item[] = [];
  #open: OpenItem | undefined;
  #sequence = 0;

  /** @param response all of it but its status and output */
  constructor(response: object, newId: (prefix: string) => string) {
    this.#response = response;
    this.#newId = newId;
  }

  /** The response as it is. @param more what is known at its end */
  response(status: Status, more: object = {}): object {
    return { ...this.#response, status, output: [...this.#output], ...more };
  }

  event(type: string, fields: object): ResponseEvent {
    return { type, sequence_number: this.#sequence++, ...fields };
  }

  begin(): ResponseEvent[] {
    const response = this.response("in_progress");
    return [this.event("response.created", { response }), this.event("response.in_progress", { response })];
  }

  /** Writes a piece. */
  *write({ thought, text, calls, logprobs }: ChatPiece): Generator<ResponseEvent, void, void> {
    if (thought !== "") {
      if (!this.#open) yield* this.#begin("reasoning");
      yield this.#delta(thought, []);
    }
    if (text !== "" || logprobs.length > 0) {
      if (this.#open?.kind !== "message") yield* this.close("completed");
      if (!this.#open) yield* this.#begin("message");
      yield this.#delta(text, logprobs);
    }
    for (const { name, arguments: values, isLast } of calls) {
      if (name !== undefined) {
        yield* this.close("completed");
        yield* this.#begin("function_call", { call_id: this.#newId("call"), name });
      }
      if (values !== "") yield this.#delta(values, []);
      if (isLast) yield* this.close("completed");
    }
  }

  /** Ends the item in progress. A response that has none gets an empty message. */
  *end(status: "completed" | "incomplete"): Generator<ResponseEvent, void, void> {
    if (!this.#open && this.#output.length === 0) yield* this.#begin("message");
    yield* this.close(status);
  }

  *close(status: "completed" | "incomplete"): Generator<ResponseEvent, void, void> {
    const open = this.#open;
    if (!open) return;
    const { id, kind, text, logprobs, call } = open;
    const at = this.#place(id);
    if (call) {
      const { content_index: _, ...place } = at;
      yield this.event("response.function_call_arguments.done", { ...place, name: call.name, arguments: text });
    } else {
      const told = kind === "message" ? { text, logprobs } : { text };
      yield this.event(`response.${textNames[kind as keyof typeof textNames]}.done`, { ...at, ...told });
      yield this.event("response.content_part.done", { ...at, part: partOf(open) });
    }
    const item = itemOf(open, status, true);
    this.#output.push(item);
    this.#open = undefined;
    yield this.event("response.output_item.done", { output_index: at.output_index, item });
  }

  *#begin(kind: OpenItem["kind"], call?: OpenItem["call"]): Generator<ResponseEvent, void, void> {
    const open: OpenItem = { id: this.#newId(idPrefixes[kind]), kind, text: "", logprobs: [], ...(call && { call }) };
    this.#open = open;
    const at = this.#place(open.id);
    const item = itemOf(open, "in_progress", false);
    yield this.event("response.output_item.added", { output_index: at.output_index, item });
    if (!call) yield this.event("response.content_part.added", { ...at, part: partOf(open) });
  }

  #delta(delta: string, logprobs: readonly TokenLogprob[]): ResponseEvent {
    const open = this.#open as OpenItem;
    open.text += delta;
    open.logprobs.push(...logprobs);
    const at = this.#place(open.id);
    if (open.kind === "function_call") {
      const { content_index: _, ...place } = at;
      return this.event("response.function_call_arguments.delta", { ...place, delta });
    }
    return open.kind === "message"
      ? this.event("response.output_text.delta", { ...at, delta, logprobs })
      : this.event("response.reasoning_text.delta", { ...at, delta });
  }

  #place(id: string) {
    return { item_id: id, output_index: this.#output.length, content_index: 0 };
  }
}

function partOf({ kind, text, logprobs }: OpenItem): OutputText | ReasoningText {
  if (kind === "reasoning") return { type: "reasoning_text", text };
  return { type: "output_text", text, annotations: [], logprobs: [...logprobs] };
}

function itemOf(open: OpenItem, status: Status, withContent: boolean): Item {
  const { id, kind, call, text } = open;
  if (call) return { id, type: "function_call", status, ...call, arguments: text };
  const part = partOf(open);
  if (kind === "message") {
    return { id, type: "message", role: "assistant", status, content: withContent ? [part as OutputText] : [] };
  }
  return { id, type: "reasoning", status, summary: [], content: withContent ? [part as ReasoningText] : [] };
}
