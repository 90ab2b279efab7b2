// What writes texts for the views: the worker of this page, or a server.

import type { ChatPiece, ChatRequest, CompleteRequest, Ending, WrittenToken } from "../protocol.js";
import { type CallOptions, callWorker } from "./worker-client.js";

export interface Engine {
  chat(request: ChatRequest, options: CallOptions<ChatPiece>): Promise<Ending>;
  complete(request: CompleteRequest, options: CallOptions<WrittenToken>): Promise<Ending>;
}

export const localEngine: Engine = {
  chat: (request, options) => callWorker("chat", request, options),
  complete: (request, options) => callWorker("complete", request, options),
};
