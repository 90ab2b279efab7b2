// The variables by which Python's huggingface_hub is told where the hub and its cache are, read as it reads them.
// Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { RwkvError } from "../../errors.js";

const yes = /^(1|on|yes|true)$/i;

function variable(...names: string[]): string | undefined {
  for (const name of names) {
    const value = process.env[name]?.trim();
    if (value) return value;
  }
  return undefined;
}

/** A path with ~ and $VARIABLES. */
function expanded(path: string): string {
  const home = path.replace(/^~(?=$|[\\/])/, homedir());
  return home.replace(/\$(?:(\w+)|\{(\w+)\})/g, (text, bare, braced) => process.env[bare ?? braced] ?? text);
}

function hubHome(): string {
  return expanded(variable("HF_HOME") ?? join(variable("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface"));
}

/** The folder of the cache. */
export function hubCacheFolder(): string {
  const named = variable("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE");
  return named === undefined ? join(hubHome(), "hub") : expanded(named);
}

/** Whether links are to be copies, as some file systems need it. */
export function linksAreRefused(): boolean {
  return yes.test(variable("HF_HUB_DISABLE_SYMLINKS") ?? "");
}

/** Where the hub is, and how it may be asked. @throws RwkvError for a setting that cannot be used */
export async function hubSettings(): Promise<{
  endpoint: string;
  token?: string;
  offline: boolean;
  seesRedirects: boolean;
}> {
  const endpoint = (variable("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, "");
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol)) {
    throw new RwkvError(
      `HF_ENDPOINT: expected a URL that begins with https: or http:, found ${JSON.stringify(endpoint)}`,
    );
  }
  const offline = yes.test(variable("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") ?? "");
  const token = offline ? undefined : await readToken();
  return { endpoint, offline, seesRedirects: true, ...(token !== undefined && { token }) };
}

/** The key of the user, who gave it by a variable or to `hf auth login`. It is in no message. */
async function readToken(): Promise<string | undefined> {
  if (yes.test(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN") ?? "")) return undefined;
  const named = variable("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN");
  const file = expanded(variable("HF_TOKEN_PATH") ?? join(hubHome(), "token"));
  const token = named ?? (await readFile(file, "utf8").catch(() => "")).trim();
  if (token === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  const where = named === undefined ? file : "HF_TOKEN";
  throw new RwkvError(`${where}: expected a token of the hub, found characters that none has`);
}
