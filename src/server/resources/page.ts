// The playground at /: its page and files. Where it was not built, a plain page says so, and how to call the server.

import { ApiError } from "../errors.js";
import { contentTypeOf, PlaygroundContents, type PlaygroundFile, playgroundFiles } from "../playground-files.js";
import type { Call, Route } from "../route.js";

/** Says in the page that the server it came from has an API beside it. */
const serverMark = ['name="rwkv-server" content="none"', 'name="rwkv-server" content="here"'] as const;

/**
 * The playground's own scripts and styles alone. Models and servers that its user names may lie anywhere.
 * Workers take the policy of their script's answer, so all files have it.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "manifest-src 'self'",
  "connect-src * data: blob:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const headers = {
  "Content-Security-Policy": policy,
  // With the opener policy that every answer has, these let the page share memory with its threads.
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Opener-Policy": "same-origin",
};

export function page(): Route[] {
  const files = playgroundFiles();
  if (!files) return [plainPage()];
  const contents = new PlaygroundContents();
  const route = (path: string, nameOf: (call: Call<unknown>) => string): Route => ({
    method: "get",
    path,
    summary: path === "/" ? "The playground, a page for people" : "A file of the playground",
    isPublic: true,
    ...(path === "/" ? { contentTypes: ["text/html"] } : { isUndescribed: true }),
    handle: (call) => answer(files.get(nameOf(call)), contents, call.headers),
  });
  const beside = [...files.keys()].filter((name) => !name.includes("/") && name !== "index.html");
  return [
    route("/", () => "index.html"),
    route("/index.html", () => "index.html"),
    ...beside.map((name) => route(`/${name}`, () => name)),
    route("/assets/:name", ({ params }) => `assets/${params["name"]}`),
  ];
}

async function answer(
  file: PlaygroundFile | undefined,
  contents: PlaygroundContents,
  request: Headers,
): Promise<Response> {
  if (!file) throw new ApiError(404, "the playground has no such file", { code: "unknown_url" });
  const isNamedByContent = file.name.startsWith("assets/");
  const isPage = file.name === "index.html";
  const compressed = !isPage && contents.isCompressible(file) && /\bgzip\b/.test(request.get("accept-encoding") ?? "");
  const tag = `"${file.digest.slice(0, 32)}${isPage ? "-served" : ""}${compressed ? "-gzip" : ""}"`;
  const all = {
    ...headers,
    ETag: tag,
    Vary: "Accept-Encoding",
    "Cache-Control": isNamedByContent ? "public, max-age=31536000, immutable" : "no-cache",
  };
  if (request.get("if-none-match")?.includes(tag)) return new Response(null, { status: 304, headers: all });
  const typed = { ...all, "Content-Type": contentTypeOf(file) };
  // The page itself is small and is changed on its way; it is sent as it is.
  if (isPage) {
    const html = new TextDecoder().decode(await contents.read(file)).replace(...serverMark);
    return new Response(html, { headers: typed });
  }
  const bytes = await (compressed ? contents.gzipped(file) : contents.read(file));
  const encoding = compressed ? { "Content-Encoding": "gzip" } : {};
  return new Response(bytes, { headers: { ...typed, ...encoding, "Content-Length": String(bytes.length) } });
}

function plainPage(): Route {
  const plainHeaders = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy":
      "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  };
  return {
    method: "get",
    path: "/",
    summary: "A page for people",
    isPublic: true,
    contentTypes: ["text/html"],
    handle: () => new Response(plainHtml, { headers: plainHeaders }),
  };
}

const plainHtml = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>rwkv serve</title>
<style>body { font: 16px/1.5 system-ui; max-width: 46rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>rwkv serve</h1>
<p>The server runs. <a href="/openapi.json">What it can do</a>, <a href="/metrics">how it is doing</a>.</p>
<p>The playground was not built here: <code>npm run build:playground</code> makes it.</p>
</html>
`;
