// Chooses where training computes: native kernels, or WebAssembly where there is no compiler.

import { openKernelTraining } from "../backends/kernel/kernel-training.js";
import { createNativeMachine } from "../backends/native/native.js";
import { openReferenceTraining } from "../backends/reference/reference-training.js";
import type {
  OpenTraining,
  TrainableModel,
  TrainingBackendName,
  TrainingOptions,
  TrainingRuntime,
} from "../backends/training.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { BackendError, OptionError } from "../errors.js";

const backends: Readonly<Record<TrainingBackendName, OpenTraining>> = {
  native: async (model, options) =>
    openKernelTraining(await createNativeMachine(options.threads, undefined, options.onNotice), model, options),
  wasm: async (model, options) =>
    openKernelTraining(await createWasmMachine(options.threads, undefined, "training"), model, options),
  reference: (model, options) => openReferenceTraining(model, options),
};

/**
 * @param name by default native where it can be compiled, else wasm
 * @throws BackendError, OptionError
 */
export async function openTrainingOn(
  name: TrainingBackendName | undefined,
  model: TrainableModel,
  options: TrainingOptions,
): Promise<TrainingRuntime> {
  if (name !== undefined) {
    if (!Object.hasOwn(backends, name)) throw new OptionError("backend", name, Object.keys(backends).join(", "));
    return backends[name](model, options);
  }
  try {
    return await backends.native(model, options);
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    options.onNotice?.(`${error.message}; using WebAssembly`);
    return backends.wasm(model, options);
  }
}
