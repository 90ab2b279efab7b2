// rwkv pull: downloads a model, so that later commands find it.

import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { OptionError } from "../errors.js";
import { placeOfModel } from "./named-model.js";
import { note } from "./terminal.js";

export function addPull(program: Command): void {
  program
    .command("pull")
    .description("download a model by name; its path goes to stdout")
    .argument(
      "<name>",
      "a short name (rwkv models lists them), owner/repo/file, hf:owner/repo@revision/file, hf:owner/repo:Q8_0",
    )
    .addHelpText(
      "after",
      `
Models are kept in the cache of Python's huggingface_hub, and taken from there where it has them. A download that was ended goes
on where it was. Every command takes these names for --model, too.

Variables: HF_HOME and HF_HUB_CACHE (where the cache is), HF_TOKEN (for repositories that are not public), HF_ENDPOINT (a mirror
of the hub), HF_HUB_OFFLINE (1: nothing is asked of the hub).

Examples:
  $ rwkv pull rwkv7-g1-0.4b
  $ rwkv pull hf:shoumenchougou/RWKV7-G1d-0.4B-GGUF:Q8_0
  $ HF_ENDPOINT=https://hf-mirror.com rwkv pull rwkv7-world-0.1b`,
    )
    .action(async (name: string) => {
      const path = await placeOfModel(name);
      if (path === name) {
        throw new OptionError(
          "name",
          name,
          "the name of a model on the hub, such as rwkv7-g1-0.4b or hf:owner/repo/file",
        );
      }
      const { fileSize } = await import("../platform/node/files.js");
      note(`${prettyBytes((await fileSize(path)) ?? 0)} in`);
      process.stdout.write(`${path}\n`);
    });
}
