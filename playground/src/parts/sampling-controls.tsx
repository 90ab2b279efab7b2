// How tokens are sampled: a preset, or one's own numbers.

import { samplingPresets } from "rwkv";
import type { PresetName, Sampling } from "../protocol.js";
import { defaultSampling, maxTokens, preset, sampling, samplingRanges } from "../settings.js";
import { texts } from "../texts/texts.js";

const presetNames = Object.keys(samplingPresets) as PresetName[];
const optionNames = Object.keys(samplingRanges) as (keyof Sampling)[];

function choosePreset(name: string): void {
  preset.value = name as typeof preset.value;
  if (name === "default") sampling.value = defaultSampling;
  else if (name in samplingPresets) sampling.value = { ...samplingPresets[name as PresetName] };
}

export function SamplingControls() {
  const t = texts.value.sampling;
  return (
    <div class="controls">
      <label>
        <span>{t.preset}</span>
        <select value={preset.value} onChange={(event) => choosePreset(event.currentTarget.value)}>
          <option value="default">{t.default}</option>
          {presetNames.map((name) => (
            <option key={name} value={name}>
              {t.names[name]}
            </option>
          ))}
          {preset.value === "own" && <option value="own">{t.own}</option>}
        </select>
      </label>
      {optionNames.map((name) => (
        <Range
          key={name}
          label={t[name]}
          range={samplingRanges[name]}
          value={sampling.value[name] as number}
          onInput={(value) => {
            sampling.value = { ...sampling.value, [name]: value };
            preset.value = "own";
          }}
        />
      ))}
      <Range
        label={t.maxTokens}
        range={[16, 4000, 16]}
        value={maxTokens.value}
        onInput={(value) => (maxTokens.value = value)}
      />
    </div>
  );
}

interface RangeProps {
  readonly label: string;
  readonly range: readonly [least: number, most: number, step: number];
  readonly value: number;
  readonly onInput: (value: number) => void;
}

function Range({ label, range: [least, most, step], value, onInput }: RangeProps) {
  return (
    <label class="range">
      <span>
        {label} <output>{Number(value.toFixed(3))}</output>
      </span>
      <input
        type="range"
        min={least}
        max={most}
        step={step}
        value={value}
        onInput={(event) => onInput(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}
