// Names of tensors as training programs leave them: wrappers around a module (DeepSpeed, DataParallel, torch.compile, FSDP, PEFT,
// Hugging Face) put their own names before, or between, the module's.

/** Wrappers that may be around the whole model, one around the other. */
const wrapper = /^(?:_forward_module|_orig_mod|module|model|base_model\.model|rwkv)\./;
/** Wrappers that may be around any part of it. */
const between = /(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g;

/** Hugging Face's RwkvModel, Rwkv5Model and Rwkv6Model, and the names of RWKV-LM, part by part. */
const huggingFaceParts: readonly (readonly [RegExp, string])[] = [
  [/^embeddings\./, "emb."],
  [/\.pre_ln\./, ".ln0."],
  [/\.attention\./, ".att."],
  [/\.feed_forward\./, ".ffn."],
  [/\.time_mix_key$/, ".time_mix_k"],
  [/\.time_mix_value$/, ".time_mix_v"],
  [/\.time_mix_receptance$/, ".time_mix_r"],
  [/\.time_mix_gate$/, ".time_mix_g"],
];

/** The name that RWKV-LM has for what Hugging Face's models call `name`. */
export function fromHuggingFace(name: string): string {
  return huggingFaceParts.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), name);
}

/** A tensor's name in the model itself. */
export function nameInModel(name: string): string {
  let result = name.replace(between, "");
  while (wrapper.test(result)) result = result.replace(wrapper, "");
  return result;
}
