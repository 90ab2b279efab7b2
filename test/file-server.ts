// A web server for tests, on this machine alone, that serves files as servers out there do: with ranges or without, compressed,
// cut short, changed meanwhile, silent.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A file, and how it is served. */
export interface ServedFile {
  readonly bytes: Uint8Array;
  readonly headers?: Record<string, string>;
  /** Whether ranges of it are served; by default they are. */
  readonly ranges?: boolean;
  /** Whether its length is told before it is sent; by default it is. */
  readonly hasLength?: boolean;
  /** Answers in its own way, where it returns true. */
  readonly answer?: (request: IncomingMessage, response: ServerResponse, count: number) => boolean;
}

export interface FileServer {
  /** URL of its root, with a slash. */
  readonly url: string;
  /** Method and URL of each request. */
  readonly requests: string[];
  /** Bytes of bodies that were sent. */
  sent(): number;
}

/** Serves files by path; what is not among them is answered with status 404. */
export async function serveFiles(files: Record<string, ServedFile>): Promise<FileServer> {
  const requests: string[] = [];
  let sent = 0;
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    const { pathname } = new URL(request.url as string, "http://localhost");
    const file = files[decodeURIComponent(pathname)];
    if (!file) return void response.writeHead(404).end("not here");
    if (file.answer?.(request, response, requests.length)) return;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const ranged = first !== undefined && file.ranges !== false;
    const begin = ranged ? Number(first) : 0;
    const end = ranged ? Math.min(file.bytes.length, Number(last) + 1) : file.bytes.length;
    if (ranged && begin >= file.bytes.length) {
      return void response.writeHead(416, { "content-range": `bytes */${file.bytes.length}` }).end();
    }
    const range = { "content-range": `bytes ${begin}-${end - 1}/${file.bytes.length}` };
    const length = file.hasLength !== false && { "content-length": `${end - begin}` };
    response.writeHead(ranged ? 206 : 200, { ...length, ...(ranged && range), ...file.headers });
    if (request.method === "HEAD") return void response.end();
    sent += end - begin;
    response.end(file.bytes.subarray(begin, end));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, requests, sent: () => sent };
}
