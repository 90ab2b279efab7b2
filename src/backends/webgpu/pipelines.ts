// Pipelines of a device: each shader is compiled once, when it is first needed, and waited for only then.

import { BackendError } from "../../errors.js";
import type { Device } from "./device.js";
import type { Shader } from "./shader.js";

const computeStage = 4;

/** The bindings of shader.ts, in their order. */
const bindings = [
  ...(["storage", "uniform", "read-only-storage"] as const),
  ...(["read-only-storage", "storage", "read-only-storage"] as const),
];

/** The pipelines of a model. */
export class Pipelines {
  /** What all of them are bound to. */
  readonly layout: GPUBindGroupLayout;
  readonly #device: Device;
  readonly #made = new Map<string, GPUComputePipeline>();

  constructor(device: Device) {
    this.#device = device;
    this.layout = device.gpu.createBindGroupLayout({
      entries: bindings.map((type, binding) => ({
        binding,
        visibility: computeStage,
        buffer: { type, hasDynamicOffset: type === "uniform" },
      })),
    });
  }

  /** Whether all of these can be used. */
  has(shaders: readonly Shader[]): boolean {
    return shaders.every(({ code }) => this.#made.has(code));
  }

  /** A pipeline that was made. */
  of({ code }: Shader): GPUComputePipeline {
    return this.#made.get(code) as GPUComputePipeline;
  }

  /** Compiles shaders, at once as far as the device can. @throws BackendError when one is refused */
  async make(shaders: readonly Shader[]): Promise<void> {
    const missing = new Map(shaders.filter((each) => !this.#made.has(each.code)).map((each) => [each.code, each]));
    await Promise.all(
      [...missing.values()].map(async (shader) => this.#made.set(shader.code, await this.#get(shader))),
    );
  }

  #get(shader: Shader): Promise<GPUComputePipeline> {
    const { pipelines } = this.#device;
    let pipeline = pipelines.get(shader.code);
    if (!pipeline) {
      pipeline = this.#compile(shader);
      pipelines.set(shader.code, pipeline);
    }
    return pipeline;
  }

  async #compile({ label, code, subgroupCode = code }: Shader): Promise<GPUComputePipeline> {
    const { gpu, hasSubgroups } = this.#device;
    try {
      return await gpu.createComputePipelineAsync({
        label,
        layout: gpu.createPipelineLayout({ bindGroupLayouts: [this.layout] }),
        compute: { module: gpu.createShaderModule({ label, code: hasSubgroups ? subgroupCode : code }) },
      });
    } catch (cause) {
      this.#device.check();
      throw new BackendError(`webgpu backend: the shader "${label}" is refused (${(cause as Error).message})`, {
        cause,
      });
    }
  }
}
