// What a checkpoint's model gives for a text, on any backend: for tests that compare backends, types, pieces and company.

import { openCheckpoint } from "rwkv";
import type { Backend, Runtime } from "#rwkv/backends/backend";
import { bindModel } from "#rwkv/models/versions";

/** Opens a checkpoint on a backend for as long as `use` takes. */
export async function withRuntime<T>(
  path: string,
  backend: Backend,
  options: Parameters<Backend["open"]>[1],
  use: (runtime: Runtime) => Promise<T>,
): Promise<T> {
  const checkpoint = await openCheckpoint(path);
  const runtime = await backend.open(bindModel(checkpoint), options);
  try {
    return await use(runtime);
  } finally {
    await runtime.dispose();
    await checkpoint.close();
  }
}

/** Logits after every token, read in pieces of `chunk`, then the state; with another sequence beside it. */
export async function outputsOf(
  runtime: Runtime,
  tokens: readonly number[],
  chunk: number,
  company: readonly number[] = [],
): Promise<number[]> {
  const [state, other] = [runtime.createState(), runtime.createState()];
  const result: number[] = [];
  for (let at = 0; at < tokens.length; at += chunk) {
    const own = { state, tokens: tokens.slice(at, at + chunk), logits: "all" as const };
    const beside = company.length > 0 ? [{ state: other, tokens: company, logits: "none" as const }] : [];
    result.push(...(await runtime.run([...beside, own])).logits);
  }
  result.push(...(await runtime.readState(state)));
  return result;
}
