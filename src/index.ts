// The public API of the package.

export type { BackendName } from "./backends/backend.js";
export type { Thinking } from "./chat/chat-format.js";
export { type ChatPrompt, type ChatPromptOptions, chatPrompt } from "./chat/chat-prompt.js";
export { type ChatFormatName, type ChatModel, chatFormatFor } from "./chat/formats.js";
export { readToolCalls } from "./chat/marked-turns.js";
export type { ChatMessage, ChatTool, ToolCall } from "./chat/messages.js";
export { type ThinkingPiece, ThinkingReader } from "./chat/thinking-reader.js";
export type { Checkpoint, CheckpointFormat, Metadata, StoredTensor } from "./checkpoints/checkpoint.js";
export type { CheckpointInput } from "./checkpoints/checkpoint-input.js";
export { openCheckpoint } from "./checkpoints/open-checkpoint.js";
export { readFloat32 } from "./checkpoints/read-tensor.js";
export { writePth } from "./checkpoints/write-pth.js";
export { writeSafetensors } from "./checkpoints/write-safetensors.js";
export type { WritableTensor, WriteOptions } from "./checkpoints/writer.js";
export type { ComputeType as WeightDType } from "./dtypes.js";
export {
  BackendError,
  CheckpointError,
  LimitError,
  OptionError,
  RwkvError,
  StateError,
  TokenizerError,
  TrainingError,
} from "./errors.js";
export type { Generation, GenerationStep } from "./generation/generation.js";
export type { Constraint, GenerationOptions } from "./generation/generation-options.js";
export type { FinishReason, GenerationResult } from "./generation/generation-progress.js";
export type { Model, ModelInfo, ModelLimits, Segment } from "./generation/model.js";
export type { ReadOptions } from "./generation/reading.js";
export type { SchedulerStatistics } from "./generation/scheduler.js";
export type { Session } from "./generation/session.js";
export type { Snapshot } from "./generation/snapshot.js";
export type { State } from "./generation/state.js";
export { type KnownModel, knownModels } from "./hub/known-models.js";
export { type StoreOptions, storeModel } from "./hub/local-models.js";
export { type DownloadOptions, downloadModel, modelUrl, removeStoredModel, storedModels } from "./hub/named-models.js";
export { type LoadOptions, load } from "./load.js";
export type { LoraSource } from "./models/lora-source.js";
export type { StoredModel } from "./platform/platform.js";
export type { StorageType as DType } from "./quantization/storage-types.js";
export type { TokenLogProbability } from "./sampling/log-probability.js";
export { Sampler } from "./sampling/sampler.js";
export type { SamplingOptions } from "./sampling/sampling-options.js";
export { type SamplingPreset, type SamplingPresetName, samplingPresets } from "./sampling/sampling-presets.js";
export type { StoredVocabulary } from "./stored-vocabulary.js";
export { openTokenizer } from "./tokenizers/open-tokenizer.js";
export type { Tokenizer, TokenStream } from "./tokenizers/tokenizer.js";
