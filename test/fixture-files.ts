// Where tests find models and expected values: those of test/fixtures, which are part of the project, and those of a data
// folder beside the checkout, which may be absent.

import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

export { maxDifference } from "./environment.js";

export function fixture(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
}

/** Reference data that is not part of the project; tests that need it are skipped where it is absent. */
export function sharedData(name: string): string {
  return fileURLToPath(new URL(`../../shared/data/${name}`, import.meta.url));
}

export const hasSharedData: boolean = existsSync(sharedData("README.md"));

export function readFloats(path: string): Float32Array {
  return new Float32Array(new Uint8Array(readFileSync(path)).buffer);
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}

/** A folder that is gone when the test ends. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "rwkv-test-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
