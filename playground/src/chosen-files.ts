// Which of some files is the model, and which its tokenizer.

export interface ChosenFiles {
  readonly model: File;
  readonly tokenizer?: File;
}

const modelName = /\.(pth|pt|safetensors|gguf|bin)$/i;
const tokenizerName = /(tokenizer.*\.json|vocab.*\.txt|\.json|\.txt)$/i;

/** @returns "none" or "many" where it is not one model */
export function chosenFiles(files: readonly File[]): ChosenFiles | "none" | "many" {
  const models = files.filter(({ name }) => modelName.test(name));
  if (models.length !== 1) return models.length === 0 ? "none" : "many";
  const others = files.filter(({ name }) => tokenizerName.test(name) && !/config\.json$/i.test(name));
  const tokenizer = others.find(({ name }) => /tokenizer\.json$|rwkv_vocab/i.test(name)) ?? others[0];
  return { model: models[0] as File, ...(tokenizer && { tokenizer }) };
}
