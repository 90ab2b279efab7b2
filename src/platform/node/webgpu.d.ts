// The part of the optional package `webgpu` that is used, so that the build does not need the package.

declare module "webgpu" {
  /** @param options of Dawn, each "name=value" */
  export function create(options: readonly string[]): GPU;
}
