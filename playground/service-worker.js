// Keeps the playground's files, so that it opens without a network after its first visit. The build fills in their names.

const files = __FILES__;
const cacheName = `rwkv-playground-${__VERSION__}`;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(cacheName);
      await cache.addAll(files);
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter((name) => name.startsWith("rwkv-playground-") && name !== cacheName);
      await Promise.all(old.map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (!["GET", "HEAD"].includes(request.method) || url.origin !== self.location.origin) return;
  if (request.mode === "navigate") {
    const isOwn = [".", "./index.html"].some(
      (name) => new URL(name, self.registration.scope).pathname === url.pathname,
    );
    if (isOwn) event.respondWith(page(request));
  } else if (files.some((name) => new URL(name, self.registration.scope).href === url.href)) {
    event.respondWith(file(request));
  }
});

/** From the network where there is one, so that a new version is seen at once. */
async function page(request) {
  const cache = await caches.open(cacheName);
  try {
    const response = await fetch(request);
    if (!response.ok) return response;
    // Another application may be served here by now, with which this one has nothing to do.
    if (!(await response.clone().text()).includes('name="rwkv-server"')) {
      await self.registration.unregister();
      return response;
    }
    await cache.put("./", response.clone());
    return isolated(response);
  } catch (error) {
    const kept = await cache.match("./");
    if (kept) return isolated(kept);
    throw error;
  }
}

/** Files named by their content never change, and the others come with the version that names them. */
async function file(request) {
  const cache = await caches.open(cacheName);
  const kept = await cache.match(request.url);
  if (!kept) return isolated(await fetch(request));
  return isolated(request.method === "HEAD" ? new Response(null, { headers: kept.headers }) : kept);
}

/** With the headers that threads need, which many hosts of static files cannot send. */
function isolated(response) {
  if (!response.ok || response.headers.get("cross-origin-embedder-policy")) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
