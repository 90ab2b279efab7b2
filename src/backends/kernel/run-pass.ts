// Runs a pass on a machine, and says what was wrong with it.

import { BackendError, RwkvError } from "../../errors.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { type PassFields, passStatus, writePass } from "./record.js";

/** What kernels say of a pass (enum pass_status in kernels/plan.h); the first is that it is complete. */
const passStatuses = [
  "complete",
  "the model was disposed while a pass was running",
  "a sequence has rows outside the pass",
  "a token id is outside the vocabulary",
  "a row whose logits are wanted is outside the pass",
  "a target is outside the vocabulary",
  "a token whose logit is adjusted is outside the vocabulary",
] as const;
const stopped = 1;

/**
 * Runs the pass that `block` is memory for.
 *
 * @throws RwkvError when an index of the pass is outside what it points into: nothing was computed then; BackendError
 *   when the machine
 *   was disposed
 */
export async function runPass(machine: KernelMachine, block: Block, fields: PassFields): Promise<void> {
  writePass(fields, block.bytes);
  await machine.run(block.address);
  const status = passStatus(block.bytes);
  if (status === stopped) throw new BackendError(passStatuses[stopped]);
  if (status !== 0) throw new RwkvError(`a pass cannot be run: ${passStatuses[status] ?? `status ${status}`}`);
}
