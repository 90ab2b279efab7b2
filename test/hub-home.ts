// A cache of the hub's and a hub of its own for each test, which the variables of this process name.

import { onTestFinished } from "vitest";
import { temporaryFolder } from "./fixture-files.js";
import { type HubServer, startHub } from "./hub-server.js";

const variables = [
  ...["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"],
  ...["HF_HUB_DISABLE_SYMLINKS", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "XDG_CACHE_HOME"],
];

/** An empty HF_HOME, until the test ends. */
export async function freshHome(): Promise<string> {
  const home = await temporaryFolder();
  const before = variables.map((name) => [name, process.env[name]] as const);
  for (const name of variables) delete process.env[name];
  process.env["HF_HOME"] = home;
  onTestFinished(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  return home;
}

/** A hub with these files, which HF_ENDPOINT names. */
export async function hubWith(files: Record<string, Uint8Array>): Promise<HubServer> {
  const hub = await startHub(files);
  onTestFinished(() => hub.close());
  process.env["HF_ENDPOINT"] = hub.endpoint;
  return hub;
}
