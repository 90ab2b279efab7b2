// RWKV versions as architectures of the lab: the graphs of src/models, trained by their own recipes.

import type { ModelDefinition, ModelSize } from "../../models/model-definition.js";
import type { Architecture, ArchitectureSize, RwkvVersion } from "./architecture.js";

/** A version of RWKV. */
export interface RwkvArchitecture extends Architecture {
  readonly version: RwkvVersion;
}

/** @param about what is said of it, and its dimensions */
export function rwkvArchitecture<Size extends ModelSize>(
  definition: ModelDefinition<Size>,
  about: Pick<Architecture, "paper" | "complexity"> & { readonly sizeOf: (size: ArchitectureSize) => Size },
): RwkvArchitecture {
  const { sizeOf, paper, complexity } = about;
  return {
    name: `rwkv${definition.version}`,
    title: `RWKV-${definition.version}`,
    paper,
    complexity,
    theory: { training: 1, token: 0, state: 0 },
    version: { definition, sizeOf },
    build: (size) => definition.build(sizeOf(size), { layerNormEpsilon: 1e-5 }),
  };
}
