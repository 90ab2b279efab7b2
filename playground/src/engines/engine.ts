// What writes texts for the views: the worker of this page, or a server.

import { busyWith } from "../busy.js";
import type { ChatPiece, ChatRequest, CompleteRequest, Ending, WrittenToken } from "../protocol.js";
import { type CallOptions, callWorker } from "./worker-client.js";

export interface Engine {
  chat(request: ChatRequest, options: CallOptions<ChatPiece>): Promise<Ending>;
  complete(request: CompleteRequest, options: CompleteOptions): Promise<Ending>;
}

export interface CompleteOptions extends CallOptions<WrittenToken> {
  /** Whether nobody asked for the text: another model need not wait for its end. */
  readonly isUnasked?: boolean;
}

export const localEngine: Engine = {
  chat: (request, options) => busyWith(callWorker("chat", request, options)),
  complete(request, { isUnasked, ...options }) {
    const writing = callWorker("complete", request, options);
    return isUnasked ? writing : busyWith(writing);
  },
};
