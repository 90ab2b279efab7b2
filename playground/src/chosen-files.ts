// Which of some files is the model, and which belong to it.

import type { FileSource } from "./protocol.js";

const modelName = /\.(pth|pt|safetensors|gguf|bin)$/i;
const indexName = /\.(safetensors|bin)\.index\.json$/i;
const tokenizerName = /(\.json|vocab.*\.txt)$/i;

/** Whether a model is in several files, which can be read only where they lie beside each other. */
export function isSharded({ model }: FileSource): boolean {
  return indexName.test(model.name);
}

/** @returns "none" or "many" where it is not one model */
export function chosenFiles(files: readonly File[]): FileSource | "none" | "many" {
  const [index, ...otherIndexes] = files.filter(({ name }) => indexName.test(name));
  if (index && otherIndexes.length === 0) {
    const others = files.filter((file) => file !== index && /\.(safetensors|bin|json|txt)$/i.test(file.name));
    return { kind: "files", model: index, others };
  }
  const models = files.filter(({ name }) => modelName.test(name));
  if (models.length !== 1) return models.length === 0 ? "none" : "many";
  const others = files.filter(({ name }) => tokenizerName.test(name) && !/config\.json$/i.test(name));
  const tokenizer = others.find(({ name }) => /tokenizer\.json$|rwkv_vocab/i.test(name)) ?? others[0];
  return { kind: "files", model: models[0] as File, others: tokenizer ? [tokenizer] : [] };
}

/** A tokenizer by a name that is looked for beside a model: users' may be called "tokenizer (1).json". */
export function asTokenizer(file: File): File {
  const isText = /\.txt$/i.test(file.name);
  const isFound = (isText ? /^rwkv_vocab_.*\.txt$/i : /tokenizer\.json$/i).test(file.name);
  return isFound ? file : new File([file], isText ? "rwkv_vocab_user.txt" : "tokenizer.json");
}
