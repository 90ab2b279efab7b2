// Numbers that a model is computed with and that no tensor tells: a file says them in its metadata, under names that
// begin with "rwkv.", or a config.json beside it does; else they are what they usually are.

import type { Checkpoint, Metadata } from "../checkpoints/checkpoint.js";
import { CheckpointError } from "../errors.js";

/** A number that is said beside the tensors. */
export interface Setting {
  /** As config.json has it: "layer_norm_epsilon". */
  readonly name: string;
  readonly usual: number;
  /** It is more than the one and less than the other. */
  readonly above: number;
  readonly below: number;
}

/** Added to variances before their square root is taken. */
export const layerNormEpsilon: Setting = { name: "layer_norm_epsilon", usual: 1e-5, above: 0, below: 1 };

/**
 * The same of the norm of each head's channels (ln_x). RWKV-LM trains RWKV-5 with 1e-5 on an eighth of them, which is 64e-5 on all; from
 * RWKV-6 on it says 64e-5, whatever the size of heads.
 */
export const groupNormEpsilon: Setting = { name: "ln_x_epsilon", usual: 64e-5, above: 0, below: 1 };

/** Values of settings by name. */
export type Settings = Readonly<Record<string, number>>;

const keyOf = ({ name }: Setting): string => `rwkv.${name}`;

/** The setting among those that were read; as usual where a graph is built of none. */
export function settingIn(setting: Setting, settings: Settings = {}): number {
  return Object.hasOwn(settings, setting.name) ? (settings[setting.name] as number) : setting.usual;
}

/**
 * From the file itself, else from its config.json.
 *
 * @throws CheckpointError for a value out of its range
 */
export function readSettings(checkpoint: Checkpoint, settings: readonly Setting[]): Settings {
  return Object.fromEntries(settings.map((setting) => [setting.name, readSetting(checkpoint, setting)]));
}

function readSetting({ name: file, metadata, config }: Checkpoint, setting: Setting): number {
  const { name, usual, above, below } = setting;
  const key = keyOf(setting);
  const isInFile = Object.hasOwn(metadata, key);
  const found = isInFile ? metadata[key] : (config?.[name] ?? usual);
  const value = isInFile ? Number(found) : found;
  if (typeof value === "number" && value > above && value < below) return value;
  const where = isInFile ? `metadata ${key}` : `config.json beside it: ${name}`;
  const text = JSON.stringify(found).slice(0, 60);
  throw new CheckpointError(file, `${where}: expected a number between ${above} and ${below}, found ${text}`);
}

/** What a written file must say so that it keeps its settings without the config.json. */
export function settingsMetadata(values: Settings, settings: readonly Setting[]): Metadata {
  const unusual = settings.filter((setting) => settingIn(setting, values) !== setting.usual);
  return Object.fromEntries(unusual.map((setting) => [keyOf(setting), String(settingIn(setting, values))]));
}
