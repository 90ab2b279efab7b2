// Names of tensors as training programs leave them: wrappers around a module (DeepSpeed, DataParallel, torch.compile, FSDP, PEFT,
// Hugging Face) put their own names before, or between, the module's.

/** Wrappers that may be around the whole model, one around the other. */
const wrapper = /^(?:_forward_module|_orig_mod|module|model|base_model\.model|rwkv)\./;
/** Wrappers that may be around any part of it. */
const between = /(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g;

/** A tensor's name in the model itself. */
export function nameInModel(name: string): string {
  let result = name.replace(between, "");
  while (wrapper.test(result)) result = result.replace(wrapper, "");
  return result;
}
