// The package's entry point "rwkv/server": a model behind an HTTP API.

export { type App, createApp } from "./app.js";
export { type BatchDirectory, type BatchDirectoryOptions, openBatchDirectory } from "./batches/batch-directory.js";
export type { BatchEnding } from "./batches/batch-record.js";
export { type Listening, type ListenOptions, listen } from "./listen.js";
export type { AppOptions, RequestRecord, ServerLimits } from "./options.js";
export { type BatchQueue, type BatchQueueOptions, openBatchQueue } from "./queue/batch-queue.js";
export { openStateStore, type StateStoreOptions } from "./storage/redis/state-store.js";
export { openStateDirectory, type StateDirectoryOptions } from "./storage/state-directory.js";
export type { StateStorage } from "./storage/state-storage.js";
