// A GPU device that the models of tests share, so that each shader is compiled once: a backend that opens models on it.

import type { Backend } from "#rwkv/backends/backend";
import { Device } from "#rwkv/backends/webgpu/device";
import { openOn } from "#rwkv/backends/webgpu/webgpu";

let opening: Promise<Device> | undefined;
let openingAsGpu: Promise<Device> | undefined;

/** The device, which stays until the page or process ends. */
export function sharedDevice(): Promise<Device> {
  opening ??= Device.open({ largestBuffer: 2 ** 27 });
  return opening;
}

/** The WebGPU backend on the shared device. @param largestBuffer bytes of a buffer of weights */
export function webgpuOnSharedDevice(largestBuffer?: number): Backend {
  return {
    name: "webgpu",
    open: async (model, options) => openOn((await sharedDevice()).retain(), model, options, largestBuffer),
  };
}

/**
 * The backend on a device whose shaders are those of a GPU, with as many lanes in a workgroup, and without what a browser or a device may lack;
 * the software adapter computes them, too, only more slowly.
 */
export const webgpuAsOnGpu: Backend = {
  name: "webgpu",
  open: async (model, options) => {
    openingAsGpu ??= Device.open({ largestBuffer: 2 ** 27, withoutSubgroups: true }).then((device) => {
      return Object.assign(device, { isSoftware: false, hasByteProducts: false });
    });
    return openOn((await openingAsGpu).retain(), model, options);
  },
};
