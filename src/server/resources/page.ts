// A plain page at /: whether the server is well, and how to call it.

import type { Route } from "../route.js";
import type { Services } from "../services.js";

export function page({ served }: Services): Route[] {
  const html = pageOf(served.id);
  const headers = {
    "Content-Type": "text/html; charset=utf-8",
    // The page's own script and style, and calls of this server.
    "Content-Security-Policy":
      "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  };
  return [
    {
      method: "get",
      path: "/",
      summary: "A page for people",
      contentTypes: ["text/html"],
      handle: () => new Response(html, { headers }),
    },
  ];
}

function pageOf(model: string): string {
  const name = model.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>rwkv serve</title>
<style>body { font: 16px/1.5 system-ui; max-width: 46rem; margin: 3rem auto; padding: 0 1rem } pre { background: #8882; padding: 1rem; overflow: auto }</style>
<h1>${name}</h1>
<p>The server is <b id="health">…</b>. <a href="/openapi.json">What it can do</a>, <a href="/metrics">how it is doing</a>.</p>
<pre id="example"></pre>
<script>
document.getElementById("example").textContent =
  "curl " + location.origin + "/v1/chat/completions -H 'Content-Type: application/json' \\\\\\n" +
  "  -d '{\\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"Hello\\"}]}'";
const show = () => fetch("/health").then((answer) => answer.ok ? "well" : "unwell", () => "gone")
  .then((text) => { document.getElementById("health").textContent = text; });
show();
setInterval(show, 5000);
</script>
</html>
`;
}
