// What a repository on the hub has: one file by asking for its headers, or all files by the hub's API, which pages must use, since they
// do not see the headers of a redirect.

import { CheckpointError } from "../errors.js";
import { download } from "../http/download.js";
import type { Sum } from "../platform/platform.js";
import { checkHubStatus, type HubSettings, hubExchange, withPatience } from "./hub-requests.js";
import { isSafePath } from "./model-name.js";

/** A file of a commit. */
export interface HubFile {
  readonly repository: string;
  readonly commit: string;
  /** Its path in the repository. */
  readonly file: string;
  /** Bytes. */
  readonly size: number;
  /** What the hub calls its content: the SHA-256 of a large file, Git's SHA-1 of another. */
  readonly etag: string;
}

/** How the hub is asked. */
interface Asking {
  readonly signal?: AbortSignal | undefined;
  /** Whether to ask once only, where there is something else to take. */
  readonly once?: boolean;
}

function asking<T>(ask: () => Promise<T>, { signal, once }: Asking): Promise<T> {
  return once ? ask() : withPatience(ask, signal);
}

const metadataTimeout = 30_000;
const mostListed = 2 ** 24;
const commitPattern = /^[0-9a-f]{40}$/;

export function isCommit(revision: string): boolean {
  return commitPattern.test(revision);
}

/** The URL of a file. */
export function fileUrl({ endpoint }: HubSettings, repository: string, revision: string, file: string): string {
  const path = file.split("/").map(encodeURIComponent).join("/");
  return `${endpoint}/${repository}/resolve/${encodeURIComponent(revision)}/${path}`;
}

/** What can be checked of a file's content by what the hub calls it. */
export function sumOf({ etag }: Pick<HubFile, "etag">): Sum | undefined {
  if (/^[0-9a-f]{64}$/.test(etag)) return { algorithm: "sha256", hex: etag };
  return /^[0-9a-f]{40}$/.test(etag) ? { algorithm: "git-sha1", hex: etag } : undefined;
}

/** A file, by its headers. @param name the model's, for errors @throws CheckpointError */
export async function hubFile(
  settings: HubSettings,
  name: string,
  { repository, revision, file }: { repository: string; revision: string; file: string },
  how: Asking = {},
): Promise<HubFile> {
  if (!settings.seesRedirects) {
    const all = await hubFiles(settings, name, { repository, revision }, how);
    const found = all.find((one) => one.file === file);
    if (!found) throw new CheckpointError(name, "no such file in this repository");
    return found;
  }
  const url = fileUrl(settings, repository, revision, file);
  const request = {
    method: "HEAD",
    headers: { "accept-encoding": "identity" },
    timeout: metadataTimeout,
    signal: how.signal,
    stopAt: ({ headers }: Response) => headers.has("x-linked-etag"),
  } as const;
  const ask = () =>
    hubExchange(settings, name, url, request, async (response) => {
      const { headers, status } = response;
      const isPointer = headers.has("x-linked-etag") && status >= 300 && status < 400;
      if (!isPointer) checkHubStatus(settings, name, response);
      const size = headers.get("x-linked-size") ?? (isPointer ? null : headers.get("content-length"));
      const etag = headers.get("x-linked-etag") ?? headers.get("etag");
      return checkedFile(settings, name, {
        repository,
        commit: headers.get("x-repo-commit"),
        file,
        size: size === null ? null : Number(size),
        etag: etag?.replace(/^W\//, "").replaceAll('"', "") ?? null,
      });
    });
  return asking(ask, how);
}

/** All files of a revision. @throws CheckpointError */
export async function hubFiles(
  settings: HubSettings,
  name: string,
  { repository, revision }: { repository: string; revision: string },
  how: Asking = {},
): Promise<HubFile[]> {
  const url = `${settings.endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const ask = () =>
    hubExchange(settings, name, url, { timeout: metadataTimeout, signal: how.signal }, async (response, body) => {
      checkHubStatus(settings, name, response, "repository or revision");
      return (await download(name, response, body, { limit: mostListed })).toBytes();
    });
  const bytes = await asking(ask, how);
  let json: { sha?: unknown; siblings?: unknown };
  try {
    json = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new CheckpointError(name, `expected JSON from ${settings.endpoint}/api, found something else`, { cause });
  }
  if (!Array.isArray(json?.siblings)) {
    throw new CheckpointError(name, `expected a list of files from ${settings.endpoint}/api, found none`);
  }
  const files = json.siblings as {
    rfilename?: unknown;
    size?: unknown;
    blobId?: unknown;
    lfs?: { sha256?: unknown } | null;
  }[];
  return files.map((one) => {
    const etag = one?.lfs?.sha256 ?? one?.blobId;
    return checkedFile(settings, name, { repository, commit: json.sha, file: one?.rfilename, size: one?.size, etag });
  });
}

/** What the hub told becomes names of files here, so all of it is checked. @throws CheckpointError */
function checkedFile(
  { endpoint }: HubSettings,
  name: string,
  {
    repository,
    commit,
    file,
    size,
    etag,
  }: { repository: string } & Record<"commit" | "file" | "size" | "etag", unknown>,
): HubFile {
  const wrong = (what: string, expected: string, found: unknown) =>
    new CheckpointError(
      name,
      `expected ${expected} as the ${what} from ${endpoint}, found ${found == null ? "none" : JSON.stringify(found)?.slice(0, 80)}`,
    );
  if (typeof commit !== "string" || !isCommit(commit)) throw wrong("commit", "40 hexadecimal digits", commit);
  if (typeof file !== "string" || !isSafePath(file)) throw wrong("path of a file", "a path", file);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
    throw wrong("size", "a number of bytes", size);
  if (typeof etag !== "string" || !/^[\w-]{8,128}$/.test(etag)) throw wrong("etag", "letters and digits", etag);
  return { repository, commit, file, size, etag };
}
