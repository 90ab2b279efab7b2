// Models that the browser keeps for this site, by the library's own functions, and official ones that it could have.

import {
  downloadModel,
  type KnownModel,
  knownModels,
  removeStoredModel,
  type StoredModel,
  storedModels,
  storeModel,
} from "rwkv";
import type { HubModel, KeptModel, Library, Progress, Source } from "../protocol.js";
import { bytesPerWeight, mostBytes, offeredTypes } from "./model-sizes.js";
import { nameOf } from "./open-source.js";
import type { Context } from "./worker.js";

export { modelUrl } from "rwkv";

const weights = /\.(pth|pt|safetensors|gguf|bin)$/i;
const index = /\.index\.json$/i;
const shard = /-\d+-of-\d+\.\w+$/;

export async function library(): Promise<Library> {
  try {
    const stored = await storedModels();
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    return { kept: keptModels(stored), known: hubModels(stored), storage: { quota, usage } };
  } catch {
    // A page without https:, a private window, an old browser.
    return { kept: [], known: hubModels([]), storage: undefined };
  }
}

/** Brings a model into the browser's storage. @returns its path */
export async function keep(source: Source, { signal, send }: Context<Progress>): Promise<string> {
  const options = { signal, onProgress: (done: number, total: number) => send({ done, total }) };
  switch (source.kind) {
    case "name":
      return downloadModel(source.name, { ...options, endpoint: source.hub, onWarning: () => {} });
    case "url":
      return downloadModel(source.url, { ...options, onWarning: () => {} });
    case "files":
      return downloadModel(await storeModel([...source.others, source.model], options));
    default:
      throw new Error(`${nameOf(source)}: is kept already`);
  }
}

export async function remove(names: readonly string[]): Promise<null> {
  for (const name of names) await removeStoredModel(name);
  return null;
}

const isLocal = ({ repository }: StoredModel) => repository.startsWith("local:");
const isUrl = ({ repository }: StoredModel) => /^https?:/i.test(repository);

/** Files that belong together, as one model each: what is to be opened, with its shards and what lies beside it. */
function keptModels(stored: readonly StoredModel[]): KeptModel[] {
  const models: KeptModel[] = [];
  const folderOf = ({ repository, commit, file }: StoredModel) =>
    [repository, commit, file.slice(0, file.lastIndexOf("/") + 1)].join("\n");
  const groups = new Map<string, StoredModel[]>();
  for (const one of stored) groups.set(folderOf(one), [...(groups.get(folderOf(one)) ?? []), one]);
  for (const group of groups.values()) {
    const indexes = group.filter(({ file }) => index.test(file));
    const heads = indexes.length > 0 ? indexes : group.filter(({ file }) => weights.test(file) && !shard.test(file));
    // Shards whose index has not come.
    const mains = heads.length > 0 ? heads : group.filter(({ file }) => weights.test(file)).slice(0, 1);
    for (const main of mains) models.push(keptModel(main, mains.length === 1 ? group : [main]));
  }
  return models.toSorted((a, b) => a.title.localeCompare(b.title));
}

function keptModel(main: StoredModel, files: readonly StoredModel[]): KeptModel {
  const { repository, revisions, commit, file, path } = main;
  const sum = (of: (one: StoredModel) => number) => files.reduce((all, one) => all + of(one), 0);
  const isComplete = files.every(({ complete }) => complete);
  const isElsewhere = isLocal(main) || isUrl(main);
  const revision = revisions.includes("main") ? "" : `@${revisions[0] ?? commit}`;
  const named = (one: StoredModel) => `hf:${repository}${revision}/${one.file}`;
  return {
    title: file.slice(file.lastIndexOf("/") + 1),
    from: isLocal(main) ? "" : repository,
    // The user's files are chosen again; only they know where they are.
    ...(!isLocal(main) && { name: isUrl(main) ? repository : named(main) }),
    bytes: sum(({ bytes }) => bytes),
    size: sum(({ size, bytes }) => size ?? bytes),
    ...(isComplete && path !== undefined && { path }),
    files: isElsewhere ? [repository] : files.map(named),
  };
}

function hubModels(stored: readonly StoredModel[]): HubModel[] {
  return knownModels.map((model) => hubModel(model, stored));
}

function hubModel({ name, repository, file, size, parameters }: KnownModel, stored: readonly StoredModel[]): HubModel {
  // They are stored as bfloat16.
  const bytes = size ?? Number(parameters) * 2e9;
  const count = bytes / 2;
  const choices = [
    { fits: "stored" as const, fittingBytes: bytes },
    ...offeredTypes
      .filter((dtype) => dtype !== "f16")
      .map((dtype) => ({ fits: dtype, fittingBytes: count * (bytesPerWeight[dtype] as number) })),
  ];
  const here = stored.find((one) => one.repository === repository && one.file === file && one.complete);
  return {
    name,
    bytes,
    isExact: size !== undefined,
    ...choices.find(({ fittingBytes }) => fittingBytes <= mostBytes),
    ...(here?.path !== undefined && { path: here.path }),
  };
}
