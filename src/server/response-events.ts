// A response while it is being written: its items, and the events by which a stream tells of them. A response that is not streamed is the
// one that its last event has.

import type {
  OutputItem,
  OutputPart,
  OutputText,
  ReasoningText,
  ResponseEvent,
  ResponseHead,
  ResponseObject,
  ResponseStatus,
} from "./answer-schemas/response.js";
import type { ChatPiece } from "./chat-pieces.js";
import type { TokenLogprob } from "./token-text.js";

/** An item that is being written. */
interface OpenItem {
  readonly id: string;
  readonly kind: OutputItem["type"];
  /** Its text, or the arguments of a call. */
  text: string;
  /** What a call is of. */
  readonly call?: { readonly call_id: string; readonly name: string };
  readonly logprobs: TokenLogprob[];
}

const idPrefixes = { message: "msg", reasoning: "rs", function_call: "fc" } as const;

/** An event without its number. */
type Unnumbered = ResponseEvent extends infer Event
  ? Event extends unknown
    ? Omit<Event, "sequence_number">
    : never
  : never;

/** Writes a response. */
export class ResponseWriter {
  readonly #response: ResponseHead;
  readonly #newId: (prefix: string) => string;
  readonly #output: OutputItem[] = [];
  #open: OpenItem | undefined;
  #sequence = 0;

  /** @param response all of it but its status and output */
  constructor(response: ResponseHead, newId: (prefix: string) => string) {
    this.#response = response;
    this.#newId = newId;
  }

  /** The response as it is. @param more what is known at its end */
  response(
    status: ResponseStatus,
    more: Partial<Pick<ResponseObject, "completed_at" | "incomplete_details" | "usage">> = {},
  ): ResponseObject {
    const response = { ...this.#response, status, output: [...this.#output] };
    return { ...response, incomplete_details: null, usage: null, ...more };
  }

  /** Gives an event its number. */
  event(event: Unnumbered): ResponseEvent {
    return { ...event, sequence_number: this.#sequence++ } as ResponseEvent;
  }

  begin(): ResponseEvent[] {
    const response = this.response("in_progress");
    return [this.event({ type: "response.created", response }), this.event({ type: "response.in_progress", response })];
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
      yield this.event({ type: "response.function_call_arguments.done", ...place, name: call.name, arguments: text });
    } else {
      yield kind === "message"
        ? this.event({ type: "response.output_text.done", ...at, text, logprobs })
        : this.event({ type: "response.reasoning_text.done", ...at, text });
      yield this.event({ type: "response.content_part.done", ...at, part: partOf(open) });
    }
    const item = itemOf(open, status, true);
    this.#output.push(item);
    this.#open = undefined;
    yield this.event({ type: "response.output_item.done", output_index: at.output_index, item });
  }

  *#begin(kind: OpenItem["kind"], call?: OpenItem["call"]): Generator<ResponseEvent, void, void> {
    const open: OpenItem = { id: this.#newId(idPrefixes[kind]), kind, text: "", logprobs: [], ...(call && { call }) };
    this.#open = open;
    const at = this.#place(open.id);
    const item = itemOf(open, "in_progress", false);
    yield this.event({ type: "response.output_item.added", output_index: at.output_index, item });
    if (!call) yield this.event({ type: "response.content_part.added", ...at, part: partOf(open) });
  }

  #delta(delta: string, logprobs: readonly TokenLogprob[]): ResponseEvent {
    const open = this.#open as OpenItem;
    open.text += delta;
    open.logprobs.push(...logprobs);
    const at = this.#place(open.id);
    if (open.kind === "function_call") {
      const { content_index: _, ...place } = at;
      return this.event({ type: "response.function_call_arguments.delta", ...place, delta });
    }
    return open.kind === "message"
      ? this.event({ type: "response.output_text.delta", ...at, delta, logprobs })
      : this.event({ type: "response.reasoning_text.delta", ...at, delta });
  }

  #place(id: string) {
    return { item_id: id, output_index: this.#output.length, content_index: 0 };
  }
}

function partOf({ kind, text, logprobs }: OpenItem): OutputPart {
  if (kind === "reasoning") return { type: "reasoning_text", text };
  return { type: "output_text", text, annotations: [], logprobs: [...logprobs] };
}

function itemOf(open: OpenItem, status: ResponseStatus, withContent: boolean): OutputItem {
  const { id, kind, call, text } = open;
  if (call) return { id, type: "function_call", status, ...call, arguments: text };
  const part = partOf(open);
  if (kind === "message") {
    return { id, type: "message", role: "assistant", status, content: withContent ? [part as OutputText] : [] };
  }
  return { id, type: "reasoning", status, summary: [], content: withContent ? [part as ReasoningText] : [] };
}
