// Runs an application as a server of its own: address, TLS, limits of connections, and an end that loses no answer.

import { createServer as createPlainServer, type Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { createAdaptorServer, type Http2Bindings, type HttpBindings } from "@hono/node-server";
import { RwkvError } from "../errors.js";
import type { App } from "./app.js";
import { hangUpWhenStalled } from "./event-stream.js";
import { hostCheck } from "./host-check.js";

/** How an application is served. */
export interface ListenOptions {
  /** The address to bind to. Default 127.0.0.1, which only this machine reaches. */
  readonly host?: string;
  /** The port, 0 for any that is free. Default 8080. */
  readonly port?: number;
  /** Certificate and key, as PEM. By default there is no TLS. */
  readonly tls?: { readonly cert: string | Uint8Array; readonly key: string | Uint8Array };
  /**
   * Names by which clients may call an application without keys on a loopback address, beside localhost and addresses, or "*" for any. A
   * page may give its own name the address 127.0.0.1, and then call what is there; the name is all that tells it from this machine's user.
   */
  readonly allowedHosts?: readonly string[];
  /** Connections at once; further ones are closed. Default 2048. */
  readonly connections?: number;
  /** Seconds in which the headers of a request must be there. Default 20. */
  readonly headerSeconds?: number;
  /** Seconds in which all of a request must be there. Default 60. */
  readonly bodySeconds?: number;
  /** Seconds for which a connection is kept without a request. Default 30. */
  readonly idleSeconds?: number;
}

/** A server that listens. */
export interface Listening {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /**
   * Takes no new requests and resolves when those in progress have ended and all connections are closed.
   *
   * @param milliseconds how long they may take before they are ended where they are. Default 0
   */
  close(milliseconds?: number): Promise<void>;
}

/** Milliseconds in which last bytes may reach their readers when a server closes. */
const lastBytesMilliseconds = 1000;

/**
 * Serves an application.
 *
 * @throws RwkvError when the address cannot be bound to
 */
export async function listen(app: App, options: ListenOptions = {}): Promise<Listening> {
  const { host = "127.0.0.1", port = 8080, tls, connections = 2048 } = options;
  const { allowedHosts = [], headerSeconds = 20, bodySeconds = 60, idleSeconds = 30 } = options;
  const serverOptions = {
    headersTimeout: headerSeconds * 1000,
    requestTimeout: Math.max(headerSeconds, bodySeconds) * 1000,
    keepAliveTimeout: idleSeconds * 1000,
    connectionsCheckingInterval: 1000,
    noDelay: true,
  };
  const isOpen = !app.needsKey && isLoopback(host) && !allowedHosts.includes("*");
  const answer = isOpen ? hostCheck(app.fetch, allowedHosts) : app.fetch;
  const fetch = async (request: Request, { outgoing }: HttpBindings | Http2Bindings) => {
    if (outgoing instanceof ServerResponse) tellOfEnd(outgoing);
    const response = await answer(request);
    hangUpWhenStalled(response, () => outgoing.destroy());
    return response;
  };
  const shared = { fetch, overrideGlobalObjects: false };
  const server = (
    tls
      ? createAdaptorServer({ ...shared, createServer: createTlsServer, serverOptions: { ...serverOptions, ...tls } })
      : createAdaptorServer({ ...shared, createServer: createPlainServer, serverOptions })
  ) as Server;
  server.maxConnections = connections;
  await bind(server, host, port);
  const bound = server.address() as AddressInfo;
  const name = host.includes(":") ? `[${host}]` : host;
  return {
    url: `${tls ? "https" : "http"}://${name}:${bound.port}`,
    host,
    port: bound.port,
    close: (milliseconds = 0) => close(server, app, milliseconds),
  };
}

/** Node does not tell an answer that its connection is gone while it waits for another one before it on the same connection. */
function tellOfEnd(outgoing: ServerResponse): void {
  const { socket } = outgoing.req;
  const end = () => {
    if (outgoing.socket === null) outgoing.destroy().emit("close");
  };
  socket.once("close", end);
  outgoing.once("close", () => socket.off("close", end));
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

function bind(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => {
      const reason = error.code === "EADDRINUSE" ? "something listens there already" : error.message;
      reject(new RwkvError(`cannot listen on ${host}, port ${port}: ${reason}`, { cause: error }));
    };
    server.once("error", failed);
    server.listen(port, host, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

async function close(server: Server, app: App, milliseconds: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve()); // also where it does not listen any more
  });
  server.closeIdleConnections();
  await app.close(milliseconds);
  // A connection is idle once its last bytes are gone, which nothing tells.
  const idle = setInterval(() => server.closeIdleConnections(), 10);
  const last = setTimeout(() => server.closeAllConnections(), lastBytesMilliseconds);
  await closed;
  clearInterval(idle);
  clearTimeout(last);
}
