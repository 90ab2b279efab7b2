// A hub for tests, on this machine alone: its API as far as models are downloaded, with a storage for large files on a port of its own, as
// the real one sends clients to another host for them. It can wait, be busy, cut, wrong, and change its mind.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a test's server does with a request in its own way, where it returns true. */
export type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => boolean;

export interface HubServer {
  /** For HF_ENDPOINT. */
  readonly endpoint: string;
  /** The origin to which it sends clients for large files. */
  readonly storage: string;
  /** Requests to the hub and to its storage: method, path, and for a range its first and last byte. */
  readonly requests: string[];
  /** Headers of authorization that the storage was sent, which must be none. */
  readonly leaked: string[];
  /** Bytes of files that were sent. */
  sent(): number;
  /** Files by path in the repository; a test may change them. */
  readonly files: Map<string, Uint8Array>;
  commit: string;
  /** Before anything else is done with a request to the hub, or to the storage. */
  onHub?: Answer | undefined;
  onStorage?: Answer | undefined;
  /** The token that is asked for, if any. */
  token?: string;
  /** Whether the storage has ranges; by default it has. */
  ranges: boolean;
  /** Bytes of a file from this one on, up to the other, are held back, until a test says otherwise. */
  heldFrom: number;
  heldTo: number;
  close(): Promise<void>;
}

export const repository = "someone/some-rwkv";
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const gitSha1 = (bytes: Uint8Array) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
/** Larger files are in the storage. */
const largest = 2 ** 16;

/** What the hub calls the content of a file. */
export function etagOf(bytes: Uint8Array): string {
  return bytes.length > largest ? sha256(bytes) : gitSha1(bytes);
}

export async function startHub(files: Record<string, Uint8Array>): Promise<HubServer> {
  let sent = 0;
  let count = 0;
  const hub: Server = createServer((request, response) => answer(request, response, answerHub, "hub"));
  const storage: Server = createServer((request, response) => answer(request, response, answerStorage, "storage"));
  const addresses = await Promise.all([hub, storage].map(listen));
  const self: HubServer = {
    endpoint: `http://127.0.0.1:${addresses[0]}`,
    storage: `http://localhost:${addresses[1]}`,
    requests: [],
    leaked: [],
    sent: () => sent,
    files: new Map(Object.entries(files)),
    commit: "0123456789abcdef0123456789abcdef01234567",
    ranges: true,
    heldFrom: Number.POSITIVE_INFINITY,
    heldTo: Number.POSITIVE_INFINITY,
    close: async () => {
      for (const server of [hub, storage]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };

  function answer(
    request: IncomingMessage,
    response: ServerResponse,
    then: typeof answerHub,
    where: "hub" | "storage",
  ) {
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("access-control-expose-headers", "etag, content-range, x-repo-commit, x-error-code");
    response.setHeader("cross-origin-resource-policy", "cross-origin");
    if (request.method === "OPTIONS") {
      return void response.writeHead(204, { "access-control-allow-headers": "*" }).end();
    }
    const range = request.headers.range?.replace("bytes=", " ") ?? "";
    self.requests.push(`${where} ${request.method} ${decodeURIComponent(request.url as string)}${range}`);
    if (where === "storage" && request.headers.authorization) self.leaked.push(request.headers.authorization);
    const own = where === "hub" ? self.onHub : self.onStorage;
    if (own?.(request, response, ++count)) return;
    then(request, response);
  }

  function refuse(response: ServerResponse, status: number, code: string) {
    response.writeHead(status, { "x-error-code": code, "x-repo-commit": self.commit }).end(code);
  }

  function answerHub(request: IncomingMessage, response: ServerResponse) {
    const { pathname } = new URL(request.url as string, self.endpoint);
    if (self.token !== undefined && request.headers.authorization !== `Bearer ${self.token}`) {
      return refuse(response, 401, "RepoNotFound");
    }
    const [, api, ofApi] = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/(.+)$/.exec(pathname) ?? [];
    const [, repo, ofFile, name] =
      /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(pathname)?.map(decodeURIComponent) ?? [];
    if ((api ?? repo) !== repository) return refuse(response, 401, "RepoNotFound");
    const revision = decodeURIComponent((ofApi ?? ofFile) as string);
    if (revision !== "main" && revision !== "refs/pr/1" && revision !== self.commit) {
      return refuse(response, 404, "RevisionNotFound");
    }
    if (api !== undefined) {
      const siblings = [...self.files].map(([rfilename, bytes]) => ({
        rfilename,
        size: bytes.length,
        blobId: gitSha1(bytes),
        ...(bytes.length > largest && { lfs: { sha256: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
      }));
      const json = JSON.stringify({ id: repository, sha: self.commit, siblings });
      return void response.writeHead(200, { "content-type": "application/json" }).end(json);
    }
    const bytes = self.files.get(name as string);
    if (!bytes) return refuse(response, 404, "EntryNotFound");
    response.setHeader("x-repo-commit", self.commit);
    if (bytes.length <= largest) return sendFile(request, response, bytes, `"${gitSha1(bytes)}"`);
    const location = `${self.storage}/stored/${encodeURIComponent(name as string)}?Signature=secret`;
    response.writeHead(302, {
      location,
      "x-linked-size": `${bytes.length}`,
      "x-linked-etag": `"${sha256(bytes)}"`,
    });
    response.end();
  }

  function answerStorage(request: IncomingMessage, response: ServerResponse) {
    const { pathname } = new URL(request.url as string, self.endpoint);
    const bytes = self.files.get(decodeURIComponent(pathname.slice("/stored/".length)));
    if (!bytes) return void response.writeHead(404).end();
    sendFile(request, response, bytes, `"of-storage-${sha256(bytes).slice(0, 8)}"`);
  }

  function sendFile(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array, etag: string) {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const isSame = request.headers["if-range"] === undefined || request.headers["if-range"] === etag;
    const ranged = first !== undefined && self.ranges && isSame;
    const begin = ranged ? Number(first) : 0;
    const end = ranged && last ? Math.min(bytes.length, Number(last) + 1) : bytes.length;
    if (ranged && begin >= bytes.length) {
      return void response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
    }
    response.writeHead(ranged ? 206 : 200, {
      etag,
      "content-length": `${end - begin}`,
      ...(self.ranges && { "accept-ranges": "bytes" }),
      ...(ranged && { "content-range": `bytes ${begin}-${end - 1}/${bytes.length}` }),
    });
    if (request.method === "HEAD") return void response.end();
    void send(response, bytes, begin, end);
  }

  async function send(response: ServerResponse, bytes: Uint8Array, begin: number, end: number) {
    for (let at = begin; at < end && !response.destroyed; ) {
      const part = bytes.subarray(at, at < self.heldTo ? Math.min(end, self.heldFrom) : end);
      if (part.length === 0) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      sent += part.length;
      response.write(part);
      at += part.length;
    }
    response.end();
  }

  return self;
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
