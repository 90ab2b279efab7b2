// A plugin for esbuild, which leaves `new URL("./file", import.meta.url)` as it is, so that a bundle would look for the kernels,
// their worker and the embedded model where they are not. Vite and webpack need none.

import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** What the plugin uses of esbuild's interface for plugins; the package does not depend on esbuild. */
interface PluginBuild {
  onLoad(
    options: { filter: RegExp; namespace?: string },
    callback: (args: { path: string }) => Promise<{ contents: string | Uint8Array; loader: "js" | "file" } | undefined>,
  ): void;
  onResolve(
    options: { filter: RegExp },
    callback: (args: { path: string }) => { path: string; namespace: string },
  ): void;
  readonly initialOptions: { readonly format?: string };
  readonly esbuild: {
    build(options: {
      entryPoints: string[];
      bundle: true;
      minify: true;
      format: "esm";
      write: false;
      legalComments: "none";
    }): Promise<{ outputFiles: { contents: Uint8Array }[] }>;
  };
}

const namespace = "rwkv-file";
/** Files of the package that name others by URL, and the folder that they are in. */
const naming = /[\\/](files|compute-workers)\.js$/;
const folder = fileURLToPath(new URL("../platform/browser", import.meta.url));
const url = /new URL\("([^"]+)", import\.meta\.url\)/g;

/**
 * The plugin: `esbuild.build({ plugins: [rwkv()], bundle: true, format: "esm", outdir: "out", .. })`. It copies the files into
 * the output folder.
 */
export function rwkv(): { name: string; setup(build: PluginBuild): void } {
  return {
    name: "rwkv",
    setup(build) {
      if (build.initialOptions.format !== "esm") {
        throw new Error('rwkv: expected the format "esm", as other formats cannot tell where the bundle is');
      }
      build.onLoad({ filter: naming }, async ({ path }) => {
        if (dirname(path) !== folder) return undefined;
        const imports: string[] = [];
        const source = await readFile(path, "utf8");
        const contents = source.replace(url, (_, file: string) => {
          imports.push(
            `import file${imports.length} from ${JSON.stringify(`${namespace}:${join(dirname(path), file)}`)};`,
          );
          return `new URL(file${imports.length - 1}, import.meta.url)`;
        });
        return { contents: `${imports.join("\n")}\n${contents}`, loader: "js" };
      });
      build.onResolve({ filter: new RegExp(`^${namespace}:`) }, ({ path }) => ({
        path: path.slice(namespace.length + 1),
        namespace,
      }));
      build.onLoad({ filter: /./, namespace }, async ({ path }) => ({
        contents: path.endsWith(".js") ? await bundled(build, path) : await readFile(path),
        loader: "file",
      }));
    },
  };
}

/** A worker's script, with what it imports. */
async function bundled({ esbuild }: PluginBuild, path: string): Promise<Uint8Array> {
  const { outputFiles } = await esbuild.build({
    entryPoints: [path],
    bundle: true,
    minify: true,
    format: "esm",
    write: false,
    legalComments: "none",
  });
  return (outputFiles[0] as (typeof outputFiles)[number]).contents;
}
