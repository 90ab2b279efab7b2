// Names of files on web servers, and which file lies beside which, as the URL API defines it.

/** Whether a name is a URL on a web server. */
export function isHttpUrl(name: string): boolean {
  return /^https?:\/\//i.test(name);
}

/**
 * The absolute URL of a file. In a page a name is relative to the page, in a worker to the worker's script. A percent
 * sign in the path that does not begin an escape stands for itself: files are called `..-Eng99%-Other1%.pth`, and
 * servers refuse `%-O`.
 */
export function resolveUrl(name: string): string {
  const path = /^[^?#]*/.exec(name)?.[0] as string;
  const escaped = path.replace(/%(?![0-9a-f]{2})/gi, "%25") + name.slice(path.length);
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  return URL.canParse(escaped, base) ? new URL(escaped, base).href : escaped;
}

/** Whether a URL is that of a folder, whose path ends in a slash. */
export function isFolderUrl(url: string): boolean {
  return parse(url)?.pathname.endsWith("/") ?? false;
}

/**
 * The folder of a file's URL, or of the path of one that a page keeps; empty for URLs without one, such as `blob:` and `data:`. The query is kept, so that
 * neighbouring files are requested in the same way: it may contain a key or a version.
 */
export function folderUrl(url: string): string {
  const folder = parse(url);
  if (!folder || !/^(https?|file|rwkv-models):$/.test(folder.protocol)) return "";
  folder.pathname = folder.pathname.slice(0, folder.pathname.lastIndexOf("/") + 1);
  folder.hash = "";
  return folder.href;
}

/** The URL of a file in a folder; empty when there is no folder. */
export function fileUrlIn(folder: string, name: string): string {
  const url = parse(folder);
  if (!url) return "";
  url.pathname += (url.pathname.endsWith("/") ? "" : "/") + encodeURIComponent(name);
  return url.href;
}

/** The last part of a URL's path, without the query. */
export function lastNameOf(url: string): string {
  const { pathname } = parse(url) ?? { pathname: url };
  return pathname.slice(pathname.lastIndexOf("/") + 1);
}

function parse(name: string): URL | undefined {
  const url = resolveUrl(name);
  return name !== "" && URL.canParse(url) ? new URL(url) : undefined;
}
