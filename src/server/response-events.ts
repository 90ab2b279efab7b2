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
  readonly kind: "message" | "reasoning";
  text: string;
  readonly logprobs: TokenLogprob[];
}

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
  *write({ thought, text, logprobs }: ChatPiece): Generator<ResponseEvent, void, void> {
    if (thought !== "") {
      if (!this.#open) yield* this.#begin("reasoning");
      yield this.#delta(thought, []);
    }
    if (text === "" && logprobs.length === 0) return;
    if (this.#open?.kind === "reasoning") yield* this.close("completed");
    if (!this.#open) yield* this.#begin("message");
    yield this.#delta(text, logprobs);
  }

  /** Ends the item in progress. A response that has none gets an empty message. */
  *end(status: "completed" | "incomplete"): Generator<ResponseEvent, void, void> {
    if (!this.#open && this.#output.length === 0) yield* this.#begin("message");
    yield* this.close(status);
  }

  *close(status: "completed" | "incomplete"): Generator<ResponseEvent, void, void> {
    const open = this.#open;
    if (!open) return;
    const { id, kind, text, logprobs } = open;
    const at = this.#place(id);
    const told = kind === "message" ? { text, logprobs } : { text };
    yield this.event(kind === "message" ? "response.output_text.done" : "response.reasoning_text.done", {
      ...at,
      ...told,
    });
    yield this.event("response.content_part.done", { ...at, part: partOf(open) });
    const item = itemOf(open, status, true);
    this.#output.push(item);
    this.#open = undefined;
    yield this.event("response.output_item.done", { output_index: at.output_index, item });
  }

  *#begin(kind: OpenItem["kind"]): Generator<ResponseEvent, void, void> {
    const open: OpenItem = { id: this.#newId(kind === "message" ? "msg" : "rs"), kind, text: "", logprobs: [] };
    this.#open = open;
    const at = this.#place(open.id);
    const item = itemOf(open, "in_progress", false);
    yield this.event("response.output_item.added", { output_index: at.output_index, item });
    yield this.event("response.content_part.added", { ...at, part: partOf(open) });
  }

  #delta(delta: string, logprobs: readonly TokenLogprob[]): ResponseEvent {
    const open = this.#open as OpenItem;
    open.text += delta;
    open.logprobs.push(...logprobs);
    const at = this.#place(open.id);
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
  const { id, kind } = open;
  const part = partOf(open);
  if (kind === "message") {
    return { id, type: "message", role: "assistant", status, content: withContent ? [part as OutputText] : [] };
  }
  return { id, type: "reasoning", status, summary: [], content: withContent ? [part as ReasoningText] : [] };
}
