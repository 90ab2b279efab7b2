// Fetches files of kernels.

import { located } from "./moved-files.js";

// Not written where it is used: bundlers would take what is made of it for the URL of a file.
const here: string = import.meta.url;

/**
 * A file of the package's dist folder, and where it is.
 *
 * @param files those that bundlers were told of
 */
export async function readKernelsFrom(
  files: Readonly<Record<string, URL>>,
  name: string,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; location: string }> {
  const path = `../../${name}`;
  const url = located(path, files[name] ?? new URL(path, here));
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.href} is answered with status ${response.status}`);
  return { bytes: new Uint8Array(await response.arrayBuffer()), location: url.href };
}
