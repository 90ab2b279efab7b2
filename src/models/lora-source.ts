// Which adapters `load` puts onto a model, and how: what callers may say of them, and checking it.

import { type CheckpointInput, isCheckpointInput } from "../checkpoints/checkpoint-input.js";
import { OptionError } from "../errors.js";

/** An adapter, and how it is put onto a model. */
export interface LoraSource {
  /** The adapter's file, or a folder with one: of a run, or of Hugging Face's PEFT. */
  source: CheckpointInput;
  /**
   * What its products are multiplied by, beside alpha / rank where the adapter tells that; where it does not, as files of
   * RWKV-PEFT before October 2025, this is alpha / rank. Default 1; 0 puts nothing on, negative numbers take away.
   */
  strength?: number;
  /** The layers that it is put onto, from 0. By default all, and the head. */
  layers?: readonly number[];
}

const names: readonly string[] = ["source", "strength", "layers"] satisfies (keyof LoraSource)[];

/**
 * The adapters that the option `lora` names, copied.
 *
 * @param count the model's layers
 * @throws OptionError for what is not adapters, options that there are not, or layers that the model does not have
 */
export function loraSources(lora: unknown, count: number): LoraSource[] {
  return (Array.isArray(lora) ? lora : [lora]).map((each: unknown) => {
    const given = isCheckpointInput(each) ? { source: each } : each;
    if (!isSource(given)) {
      throw new OptionError("lora", each, "adapters: paths, URLs or bytes, or objects with one of these as source");
    }
    const { source, strength, layers } = given;
    const unknown = Object.keys(given).find((name) => !names.includes(name));
    if (unknown !== undefined) {
      throw new OptionError("lora", unknown.slice(0, 60), `adapters with ${names.join(", ")} and nothing else`);
    }
    if (strength !== undefined && !(typeof strength === "number" && Number.isFinite(strength))) {
      throw new OptionError("lora.strength", strength, "a finite number");
    }
    checkLayers(layers, count);
    return { source, ...(strength !== undefined && { strength }), ...(layers && { layers: [...layers] }) };
  });
}

function isSource(given: unknown): given is LoraSource {
  return typeof given === "object" && given !== null && isCheckpointInput((given as Partial<LoraSource>).source);
}

function checkLayers(layers: unknown, count: number): void {
  if (layers === undefined) return;
  const expected = `layers of the model, from 0 to ${count - 1}`;
  if (!Array.isArray(layers)) throw new OptionError("lora.layers", layers, expected);
  if (layers.length === 0) throw new OptionError("lora.layers", layers, `one or more ${expected}`);
  for (const layer of layers) {
    const isLayer = Number.isInteger(layer) && layer >= 0 && layer < count;
    if (!isLayer) throw new OptionError("lora.layers", layer, expected);
  }
}
