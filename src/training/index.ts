// What `rwkv/training` exports.

export { trainBytePairEncoding } from "../tokenizers/train-bpe.js";
export type { LoraOptions, SaveProgress, StepProgress, TrainOptions, TrainResult } from "./options.js";
export { train } from "./train.js";
