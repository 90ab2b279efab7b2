// What a model is named by: a short name, a file or a quantization in a repository on the hub, or a URL of the hub. A name only says
// where a model is; whether a path of that spelling exists is asked first (resolve-model.ts).

import { OptionError } from "../errors.js";
import { knownModels } from "./known-models.js";

/** A model in a repository on the hub. */
export interface HubName {
  /** What users wrote, for messages. */
  readonly text: string;
  /** owner/name. */
  readonly repository: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** Whether the name has the revision, rather than that it is the default. */
  readonly isOfRevision?: boolean;
  /** The path of its file in the repository; absent where it is to be found there. */
  readonly file?: string;
  /** Of a GGUF file to be found, such as Q4_K_M. */
  readonly quantization?: string;
  /** What is known of the file beforehand. */
  readonly sha256?: string;
  /** Whether the name may also be a path, which is looked for first. */
  readonly mayBePath: boolean;
}

const forms =
  "hf:owner/repo/file, hf:owner/repo@revision/file, hf:owner/repo:Q4_K_M (the GGUF of that quantization) or hf:owner/repo";
/** As the hub has them: letters, digits, - _ . and no .. or --. */
const segment = /^(?!.*(\.\.|--))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_-])?$/;
const modelFile = /\.(pth|safetensors|gguf|pt|bin|safetensors\.index\.json|bin\.index\.json)$/i;

/** Whether a text may be a name at all; of most paths it is seen at a glance that they are none. */
export function mayBeName(text: string): boolean {
  return /^(hf:|https?:|local:)/i.test(text) || /^rwkv[\w.-]*$/i.test(text) || plainName(text) !== undefined;
}

/**
 * Reads a name.
 *
 * @param endpoint the hub's URL, whose files are known by their URLs, too
 * @returns undefined for what is a path or a URL of another server
 * @throws OptionError for a text that begins with hf: and is not as expected
 */
export function parseModelName(text: string, endpoint: string): HubName | undefined {
  const known = knownModels.find(({ name }) => name === text.toLowerCase());
  if (known) {
    const { repository, file, sha256 } = known;
    return { text, repository, revision: "main", file, mayBePath: true, ...(sha256 !== undefined && { sha256 }) };
  }
  if (/^https?:/i.test(text)) return hubUrl(text, endpoint);
  const rest = /^hf:(?:\/\/)?(.*)$/is.exec(text)?.[1];
  if (rest === undefined) return plainName(text);
  const found = hubName(text, rest);
  if (!found) throw new OptionError("model", text, forms);
  return found;
}

/** What follows hf:. */
function hubName(text: string, rest: string): HubName | undefined {
  const [, repository, at, quantization, file] =
    /^([^/@:]+\/[^/@:]+)(?:@(refs\/\w+\/[^/:]+|[^/:]+))?(?::([\w.-]+)|\/(.+))?$/s.exec(rest) ?? [];
  const revision = (at ?? "main").replaceAll(/%2f/gi, "/"); // as in URLs of the hub, for a branch with a slash in its name
  if (repository === undefined || !isRepository(repository) || !isSafePath(revision)) return undefined;
  if (file !== undefined && !isSafePath(file)) return undefined;
  const what = {
    ...(at !== undefined && { isOfRevision: true }),
    ...(file !== undefined && { file }),
    ...(quantization !== undefined && { quantization }),
  };
  return { text, repository, revision, ...what, mayBePath: false };
}

/** owner/repo/file of a checkpoint, which may also be a path. */
function plainName(text: string): HubName | undefined {
  const [, repository, file] = /^([^/]+\/[^/]+)\/(.+)$/s.exec(text) ?? [];
  if (repository === undefined || file === undefined || !modelFile.test(file)) return undefined;
  if (!isRepository(repository) || !isSafePath(file)) return undefined;
  return { text, repository, revision: "main", file, mayBePath: true };
}

/** A file's URL on the hub, as the browser shows it (/blob/) or as it is downloaded (/resolve/). */
function hubUrl(text: string, endpoint: string): HubName | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (url.origin !== new URL(endpoint).origin || url.search !== "") return undefined;
  const [, repository, revision, file] = /^\/([^/]+\/[^/]+)\/(?:resolve|blob)\/([^/]+)\/(.+)$/.exec(url.pathname) ?? [];
  if (repository === undefined || revision === undefined || file === undefined) return undefined;
  try {
    const name = { repository, revision: decodeURIComponent(revision), file: decodeURIComponent(file) };
    if (!isRepository(repository) || !isSafePath(name.revision) || !isSafePath(name.file)) return undefined;
    return { text, ...name, isOfRevision: true, mayBePath: false };
  } catch {
    return undefined; // an escape that is none
  }
}

export function isRepository(name: string): boolean {
  const parts = name.split("/");
  return parts.length === 2 && parts.every((part) => segment.test(part));
}

/** Whether names of files and revisions, which become paths here, lead nowhere else. */
export function isSafePath(path: string): boolean {
  return (
    path.length <= 1024 &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused
    path.split("/").every((part) => part !== "" && part !== "." && part !== ".." && !/[\\:*?"<>|\0-\x1f]/.test(part))
  );
}

/** The name by which a file in a repository is asked for. */
export function nameOf(repository: string, revision: string, file: string): string {
  return `hf:${repository}${revision === "main" ? "" : `@${revision}`}/${file}`;
}
