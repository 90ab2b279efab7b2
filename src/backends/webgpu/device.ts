// A device: found, asked for the limits that the model needs, watched for its loss and for errors, given back.

import { openGpu } from "#platform/gpu";
import { BackendError } from "../../errors.js";
import type { Abilities } from "./operands.js";

/** What the limits of a device must reach. */
export interface DeviceNeeds {
  /** Whether subgroups are not to be used where there are some. */
  readonly withoutSubgroups?: boolean;
  /** Bytes of the largest buffer that would be convenient; a device may have smaller ones. */
  readonly largestBuffer: number;
}

/** Numbers of the specification, for which not every runtime has the global objects. */
export const bufferUsage = {
  mapRead: 1,
  copySource: 4,
  copyTarget: 8,
  uniform: 64,
  storage: 128,
} as const;
const mapRead = 1;

/** The language's products of four bytes, which not all implementations have. */
const byteProducts = "packed_4x8_integer_dot_product";
/** A feature of devices. */
const subgroups = "subgroups";

/** A GPU device. */
export class Device implements Abilities {
  readonly gpu: GPUDevice;
  /** What the device came from, which some runtimes must not collect before it. */
  readonly root: GPU;
  readonly hasByteProducts: boolean;
  readonly hasSubgroups: boolean;
  readonly isSoftware: boolean;
  /** Bytes that a buffer of weights can have at most. */
  readonly largestBuffer: number;
  /** Pipelines by the code of their shaders; models on one device share them (pipelines.ts). */
  readonly pipelines: Map<string, Promise<GPUComputePipeline>> = new Map();
  #failure: BackendError | undefined;
  #owners = 1;

  /** @throws BackendError where there is no adapter, or it gives no device */
  static async open(needs: DeviceNeeds): Promise<Device> {
    const root = await openGpu();
    const adapter = await root.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
    if (!adapter) throw new BackendError("webgpu backend: no adapter was found (no GPU, or no driver for it)");
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    const wanted = Math.min(needs.largestBuffer, maxBufferSize, maxStorageBufferBindingSize);
    try {
      const hasSubgroups = adapter.features.has(subgroups) && !needs.withoutSubgroups;
      const gpu = await adapter.requestDevice({
        label: "rwkv",
        requiredFeatures: hasSubgroups ? [subgroups] : [],
        requiredLimits: {
          maxBufferSize: Math.max(wanted, 2 ** 28),
          maxStorageBufferBindingSize: Math.max(wanted, 2 ** 27),
        },
      });
      return new Device(root, gpu, adapter.info);
    } catch (cause) {
      throw new BackendError(`webgpu backend: the adapter gives no device (${(cause as Error).message})`, { cause });
    }
  }

  private constructor(root: GPU, gpu: GPUDevice, info: GPUAdapterInfo | undefined) {
    this.root = root;
    this.gpu = gpu;
    this.hasByteProducts = root.wgslLanguageFeatures?.has(byteProducts) ?? false;
    this.hasSubgroups = gpu.features.has(subgroups);
    this.isSoftware = isSoftware(info);
    this.largestBuffer = Math.min(gpu.limits.maxBufferSize, gpu.limits.maxStorageBufferBindingSize);
    gpu.lost.then(({ reason, message }) => {
      this.#failure ??= new BackendError(
        `webgpu backend: the device was lost (${message || reason}); its memory is gone, so the model must be loaded again`,
      );
    });
    gpu.addEventListener("uncapturederror", ({ error }) => {
      this.#failure ??= new BackendError(
        isOutOfMemory(error)
          ? `webgpu backend: the device has not enough memory (${error.message})`
          : `webgpu backend: ${error.message}`,
      );
    });
  }

  /** @throws BackendError once the device was lost or has failed */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  /**
   * Makes a buffer, of zeros.
   *
   * @param what it is, for the error
   * @throws BackendError when a buffer cannot be as large; that memory is not enough is known later (`settle`)
   */
  buffer(what: string, size: number, usage: number): GPUBuffer {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.gpu.limits;
    const limit = usage & bufferUsage.storage ? this.largestBuffer : maxBufferSize;
    if (size > limit) {
      const name = limit === maxBufferSize ? "maxBufferSize" : "maxStorageBufferBindingSize";
      throw new BackendError(
        `webgpu backend: ${what} takes ${size} bytes, and the adapter has a limit of ${limit} (${name}: ${
          name === "maxBufferSize" ? maxBufferSize : maxStorageBufferBindingSize
        })`,
      );
    }
    return this.gpu.createBuffer({ label: what, size: Math.ceil(size / 16) * 16, usage });
  }

  /** Makes buffers and waits until it is known whether there was memory for them. @throws BackendError as `buffer`, or without it */
  async settle<T>(what: string, make: () => T): Promise<T> {
    this.gpu.pushErrorScope("out-of-memory");
    let made: T;
    let scope: Promise<GPUError | null>;
    try {
      made = make();
    } finally {
      scope = this.gpu.popErrorScope();
    }
    const error = await scope;
    if (error)
      throw new BackendError(`webgpu backend: the device has not enough memory for ${what} (${error.message})`);
    this.check();
    return made;
  }

  /** Waits until all that was submitted is done. @throws BackendError when the device fails meanwhile */
  async idle(): Promise<void> {
    // Some browsers never answer where nothing was submitted.
    this.gpu.queue.submit([]);
    await this.gpu.queue.onSubmittedWorkDone().catch(() => {});
    this.check();
  }

  /**
   * Reads a buffer that was made for it (usage mapRead), once what was submitted before is done.
   *
   * @returns a copy
   * @throws BackendError when the device fails meanwhile
   */
  async read(buffer: GPUBuffer, size: number): Promise<ArrayBuffer> {
    try {
      await buffer.mapAsync(mapRead, 0, size);
    } catch (cause) {
      await Promise.race([this.gpu.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
      this.check();
      throw new BackendError(`webgpu backend: a buffer cannot be read (${(cause as Error).message})`, { cause });
    }
    const copy = buffer.getMappedRange(0, size).slice(0);
    buffer.unmap();
    this.check();
    return copy;
  }

  /** Another owner: a model that is loaded onto a device which others use, too, and shares its compiled shaders. */
  retain(): this {
    this.#owners++;
    return this;
  }

  /** An owner needs it no more. The last one gives all memory back. */
  release(): void {
    if (--this.#owners === 0) this.gpu.destroy();
  }
}

function isOutOfMemory(error: GPUError): boolean {
  return error.constructor.name === "GPUOutOfMemoryError";
}

/** Whether there is an adapter that is a GPU, and no processor that stands in for one. */
export async function hasGpu(): Promise<boolean> {
  try {
    const adapter = await (await openGpu()).requestAdapter({ powerPreference: "high-performance" });
    return adapter !== null && !isSoftware(adapter.info);
  } catch {
    return false;
  }
}

/**
 * Whether an adapter is a processor that stands in for a GPU. Browsers need not say so: then its name does (SwiftShader, Mesa's llvmpipe,
 * Windows' WARP).
 */
export function isSoftware(info: GPUAdapterInfo | undefined): boolean {
  if (!info) return false;
  const name = [info.vendor, info.architecture, info.device, info.description].join(" ");
  return info.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render/i.test(name);
}
