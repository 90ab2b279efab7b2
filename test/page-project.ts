// Projects of vitest whose tests run in a Chromium.

import { playwright } from "@vitest/browser-playwright";
import { chromiumArguments } from "./chromium.js";
import { hubCommands } from "./hub-commands.js";

/** Test files by their names. */
export const testFiles = (...names: string[]): string[] => names.map((name) => `test/${name}.test.ts`);

/**
 * A project of vitest with tests in pages that are served with these headers.
 *
 * @param env for `import.meta.env`
 * @param args with which the browser is started
 * @param isolate whether each file has a page of its own
 */
export function pages(
  name: string,
  executablePath: string,
  include: string[],
  headers: Record<string, string>,
  env: Record<string, string> = {},
  args: string[] = chromiumArguments,
  isolate = true,
) {
  return {
    extends: true as const,
    server: { headers, fs: { allow: [".", "../shared/data"] } },
    optimizeDeps: { include: ["@huggingface/tokenizers", "@noble/hashes/sha2.js", "fast-check"] },
    test: {
      name,
      include,
      env,
      isolate,
      // vitest wants a place of its own for a project whose files share a page.
      ...(!isolate && { sequence: { groupOrder: 2 } }),
      browser: {
        enabled: true,
        headless: true,
        // One page at a time, while files in Node go on: `fileParallelism` of the project itself would let pages wait for all of those.
        fileParallelism: false,
        screenshotFailures: false,
        commands: hubCommands,
        provider: playwright({
          launchOptions: {
            executablePath,
            args,
          },
        }),
        instances: [{ browser: "chromium" as const }],
      },
    },
  };
}
