// Finds the package's files where Vite's development server, before version 8, has moved its modules but not what they name by
// URL: it bundles dependencies into node_modules/.vite/deps and leaves URLs as they are (vitejs/vite#8427).

// Not written where it is used: bundlers would take what is made of it for the URL of a file.
const here: string = import.meta.url;

/**
 * The URL of this folder in the installed package, if this module was moved out of it and URLs were not rewritten.
 *
 * @param name a file, relative to this folder
 * @param url where it is by the URL of its module
 */
export function movedFrom(name: string, url: URL): string | undefined {
  const [, modules] = /^(.*\/node_modules\/)\.vite[^/]*\/deps[^/]*\//.exec(here) ?? [];
  const isAsWritten = url.href === new URL(name, here).href;
  return modules !== undefined && isAsWritten ? `${modules}rwkv/dist/platform/browser/` : undefined;
}

/** Where a file is. Parameters are those of `movedFrom`. */
export function located(name: string, url: URL): URL {
  const folder = movedFrom(name, url);
  return folder === undefined ? url : new URL(name, folder);
}
