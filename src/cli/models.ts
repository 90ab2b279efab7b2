// rwkv models: the names that are known, and what was downloaded.

import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { RwkvError } from "../errors.js";
import { type KnownModel, knownModels } from "../hub/known-models.js";
import { nameOf } from "../hub/model-name.js";
import { removeStoredModel, storedModels } from "../hub/named-models.js";
import { openModelStore } from "../platform/node/model-store.js";
import type { StoredModel } from "../platform/platform.js";
import { note } from "./terminal.js";
import { textTable } from "./text-table.js";

export function addModels(program: Command): void {
  const models = program
    .command("models")
    .description("list the names of official models, and the models that were downloaded")
    .option("--json", "print JSON")
    .action(list);
  models
    .command("remove")
    .description(
      "remove a model that was downloaded, or all files of hf:owner/repo, from the cache that Python's programs use, too",
    )
    .argument("<name>", "as rwkv models lists it")
    .action(remove);
  models.addHelpText(
    "after",
    `
Examples:
  $ rwkv models
  $ rwkv models remove rwkv7-g1-0.4b`,
  );
}

/** Files that may be models of RWKV: the cache may hold those of other programs. */
function isModel({ file, repository, complete }: StoredModel): boolean {
  return /\.(pth|safetensors|gguf|pt|bin)$/i.test(file) && (!complete || /rwkv/i.test(`${repository}/${file}`));
}

async function list({ json }: { json?: boolean }): Promise<void> {
  const stored = (await storedModels()).filter(isModel);
  if (json) {
    process.stdout.write(`${JSON.stringify({ known: knownModels, stored }, null, 2)}\n`);
    return;
  }
  const { location } = await openModelStore();
  const known = knownModels.map((model) => [
    model.name,
    `${model.parameters} B`,
    model.size === undefined ? "" : prettyBytes(model.size),
    model.format,
    model.licence ?? "",
    isHere(model, stored),
  ]);
  const lines = [
    "Official models:",
    ...textTable([["name", "parameters", "size", "format", "licence", ""], ...known], [1, 2]).map(
      (line) => `  ${line}`,
    ),
    "",
    stored.length === 0 ? `No models in ${location}` : `In ${location}:`,
    ...textTable(
      stored.map((model) => [nameOfStored(model), prettyBytes(model.bytes), model.complete ? "" : "not complete"]),
      [1],
    ).map((line) => `  ${line}`),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function isHere({ repository, file }: KnownModel, stored: readonly StoredModel[]): string {
  const found = stored.filter((one) => one.repository === repository && one.file === file);
  if (found.some(({ complete }) => complete)) return "here";
  return found.length > 0 ? "in part" : "";
}

function nameOfStored({ repository, revisions, commit, file }: StoredModel): string {
  const revision = revisions.includes("main") || commit === "" ? "main" : (revisions[0] ?? commit);
  return nameOf(repository, revision, file);
}

async function remove(name: string): Promise<void> {
  const freed = await removeStoredModel(name);
  if (freed === undefined) throw new RwkvError(`${name}: was not downloaded (rwkv models lists what is here)`);
  note(`${name}: removed, ${prettyBytes(freed)} are free`);
}
