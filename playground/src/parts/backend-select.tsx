// Where to compute, where there is a choice.

import { backends, gpu } from "../backends.js";
import type { Backend } from "../protocol.js";
import { texts } from "../texts/texts.js";

interface BackendSelectProps {
  readonly value: Backend;
  readonly onChange: (backend: Backend) => void;
  readonly isDisabled?: boolean;
}

export function BackendSelect({ value, onChange, isDisabled = false }: BackendSelectProps) {
  const t = texts.value.model;
  if (backends.value.length < 2) return null;
  return (
    <label class="field">
      <span>{t.backend}</span>
      <select
        value={value}
        disabled={isDisabled}
        data-testid="backend"
        onChange={(event) => onChange(event.currentTarget.value as Backend)}
      >
        {backends.value.map((name) => (
          <option key={name} value={name}>
            {t.backends[name]}
            {name === "webgpu" && ` (${gpu.value})`}
          </option>
        ))}
      </select>
    </label>
  );
}
