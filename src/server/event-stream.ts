// Answers as server-sent events: an event for each value, no faster than they are read, and the end that OpenAI's clients expect.

import { toApiError } from "./errors.js";

/** Events that may wait for their reader. */
const waitingEvents = 8;
/** Milliseconds after which a comment is sent, so that nothing between takes a quiet stream for a dead one. */
const pingMilliseconds = 15_000;

/** How a stream ends. */
export interface StreamOptions {
  /** Seconds after which a reader that takes nothing is given up. */
  readonly stalledSeconds: number;
  /** Called once, whether the stream was read to its end or not. */
  readonly onEnd: (how: "read" | "left" | "stalled") => void;
  /** What is sent at the end. By default the [DONE] of OpenAI's completions. */
  readonly last?: string;
  /** Whether each event is named by its value's `type`. Default false. */
  readonly areNamed?: boolean;
}

/** What ends the connections of streams, where there are connections. */
const hangUps = new WeakMap<ReadableStream, () => void>();

/** Says how the connection of an answer is ended when its reader has stalled. Without one, its stream fails. */
export function hangUpWhenStalled({ body }: Response, hangUp: () => void): void {
  if (body) hangUps.set(body, hangUp);
}

/**
 * An answer that streams values as JSON. An error after the first becomes an event of its own.
 *
 * @param values what is sent; a value is asked for when there is room for it
 */
export function eventStream(values: AsyncGenerator<object, void, void>, options: StreamOptions): Response {
  const { onEnd, stalledSeconds, areNamed = false, last = "data: [DONE]\n\n" } = options;
  const encoder = new TextEncoder();
  let hasEnded = false;
  let stalled: NodeJS.Timeout | undefined;
  let ping: NodeJS.Timeout | undefined;
  const end = (how: "read" | "left" | "stalled") => {
    if (hasEnded) return;
    hasEnded = true;
    clearTimeout(stalled);
    clearInterval(ping);
    onEnd(how);
  };
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        ping = setInterval(() => {
          if ((controller.desiredSize ?? 0) >= waitingEvents) controller.enqueue(encoder.encode(": still here\n\n"));
        }, pingMilliseconds);
        ping.unref();
      },
      async pull(controller) {
        clearTimeout(stalled);
        let event: string | undefined;
        let isOver = false;
        try {
          const { done, value } = await values.next();
          if (!done) event = eventOf(value, areNamed);
          else isOver = true;
        } catch (error) {
          event = eventOf(toApiError(error).body, false);
          isOver = true;
        }
        if (hasEnded) return;
        if (isOver) event = (event ?? "") + last;
        if (event) controller.enqueue(encoder.encode(event));
        if (isOver) {
          controller.close();
          end("read");
        } else if ((controller.desiredSize ?? 0) <= 0) {
          stalled = setTimeout(() => {
            end("stalled");
            const hangUp = hangUps.get(stream);
            if (hangUp) hangUp();
            else controller.error(new Error("the reader has stalled"));
            void values.return();
          }, stalledSeconds * 1000);
        }
      },
      cancel() {
        end("left");
        void values.return();
      },
    },
    { highWaterMark: waitingEvents },
  );
  return new Response(stream, {
    headers: {
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-cache, no-transform",
      // The length is not known, and what there is must not wait for more: not here, not in a proxy.
      "Transfer-Encoding": "chunked",
      "X-Accel-Buffering": "no",
    },
  });
}

/** A value as an event. JSON has no line breaks. */
function eventOf(value: object, isNamed: boolean): string {
  const name = isNamed ? `event: ${(value as { type: string }).type}\n` : "";
  return `${name}data: ${JSON.stringify(value)}\n\n`;
}
