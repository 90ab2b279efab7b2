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
import { asTokenizer, isSharded } from "../chosen-files.js";
import type { FileSource, HubModel, KeptModel, Library, Progress, Source } from "../protocol.js";
import { bytesPerWeight, offeredTypes } from "./model-sizes.js";
import { nameOf } from "./open-source.js";
import type { Context } from "./worker.js";

export { modelUrl } from "rwkv";

const weights = /\.(pth|pt|safetensors|gguf|bin)$/i;
const index = /\.index\.json$/i;
const shard = /^(.*)-\d+-of-(\d+)(\.\w+)$/;
/** Beside which tokenizers and settings are downloaded, too. */
const huggingFace = /(^|\/)(pytorch_)?model\.\w+(\.index\.json)?$/;

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
      return downloadModel(await storeModel(storableFiles(source), options));
    default:
      throw new Error(`${nameOf(source)}: is kept already`);
  }
}

function storableFiles(source: FileSource): File[] {
  const { model, others } = source;
  return [...(isSharded(source) ? others : others.map(asTokenizer)), model];
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
    const sets = new Map<string, StoredModel[]>();
    for (const one of group) {
      if (!weights.test(one.file) && !index.test(one.file)) continue;
      const isPart = shard.test(one.file) || index.test(one.file);
      const set = `${isPart ? "parts of " : ""}${setOf(one.file)}`; // of one name there may be both
      sets.set(set, [...(sets.get(set) ?? []), one]);
    }
    const beside = group.filter((one) => ![...sets.values()].flat().includes(one));
    const taking = [...sets.values()].filter(
      (files) => sets.size === 1 || files.some(({ file }) => huggingFace.test(setOf(file))),
    );
    for (const files of sets.values()) {
      // What several models take stays as long as one of them does.
      const isAlone = taking.length === 1;
      models.push(keptModel(files, taking.includes(files) ? beside : [], isAlone));
    }
  }
  return models.toSorted((a, b) => a.title.localeCompare(b.title));
}

/** What shards and their index have in common: the name of the file that they would be as one. */
function setOf(file: string): string {
  return file.replace(index, "").replace(shard, "$1$3");
}

/**
 * @param weightFiles one file, or shards, with their index where it has come
 * @param ownsBeside whether what lies beside them is no other model's
 */
function keptModel(
  weightFiles: readonly StoredModel[],
  beside: readonly StoredModel[],
  ownsBeside: boolean,
): KeptModel {
  const sorted = weightFiles.toSorted((a, b) => a.file.localeCompare(b.file));
  const main = sorted.find(({ file }) => index.test(file)) ?? (sorted[0] as StoredModel);
  const { repository, revisions, commit, path } = main;
  const [, , count] = shard.exec(main.file) ?? [];
  // GGUF has no index, which comes last elsewhere: a shard alone is no model.
  const isWhole = count === undefined || (/\.gguf$/i.test(main.file) && sorted.length === Number(count));
  const file = count === undefined || /\.gguf$/i.test(main.file) ? main.file : `${setOf(main.file)}.index.json`;
  const files = [...sorted, ...beside];
  const sum = (of: (one: StoredModel) => number) => files.reduce((all, one) => all + of(one), 0);
  const isComplete = isWhole && files.every(({ complete }) => complete);
  const isElsewhere = isLocal(main) || isUrl(main);
  const revision = revisions.includes("main") ? "" : `@${revisions[0] ?? commit}`;
  return {
    title: file.slice(file.lastIndexOf("/") + 1),
    from: isLocal(main) ? "" : repository,
    // The user's files are chosen again; only they know where they are.
    ...(!isLocal(main) && { name: isUrl(main) ? repository : `hf:${repository}${revision}/${file}` }),
    bytes: sum(({ bytes }) => bytes),
    size: sum(({ size, bytes }) => size ?? bytes),
    ...(isComplete && path !== undefined && { path }),
    // Other contents of these files, of other commits, are models of their own.
    files: isElsewhere
      ? [repository]
      : (ownsBeside ? files : sorted).map((one) => `hf:${repository}@${one.commit}/${one.file}`),
  };
}

function hubModels(stored: readonly StoredModel[]): HubModel[] {
  return knownModels.map((model) => hubModel(model, stored));
}

function hubModel({ name, repository, file, size, parameters }: KnownModel, stored: readonly StoredModel[]): HubModel {
  // They are stored as bfloat16.
  const bytes = size ?? Number(parameters) * 2e9;
  const count = bytes / 2;
  const smaller = offeredTypes.filter((dtype) => dtype !== "f16");
  const here = stored.find((one) => one.repository === repository && one.file === file && one.complete);
  return {
    name,
    bytes,
    isExact: size !== undefined,
    choices: [
      { dtype: "stored", bytes },
      ...smaller.map((dtype) => ({ dtype, bytes: count * (bytesPerWeight[dtype] as number) })),
    ],
    ...(here?.path !== undefined && { path: here.path }),
  };
}
