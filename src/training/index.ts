// What `rwkv/training` exports.

export { type TrainResult, train } from "./train.js";
export type { LoraOptions, SaveProgress, StepProgress, TrainOptions } from "./options.js";
export { trainBytePairEncoding } from "../tokenizers/train-bpe.js";
