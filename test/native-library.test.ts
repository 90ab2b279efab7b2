// The native library by itself: handles that are stale, arguments that are wrong, threads that end, compilers of all
// kinds.

import { execFile, spawn } from "node:child_process";
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { load, type Model, openCheckpoint, writePth } from "rwkv";
import { afterEach, expect, it } from "vitest";
import { libraryStamp, prebuiltName, prebuiltRecipe } from "#rwkv/backends/native/library-build";
import { createNativeMachine } from "#rwkv/backends/native/native";
import { loadNativeLibrary, type NativeLibrary } from "#rwkv/backends/native/native-library";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import { loadCheckpoint } from "#rwkv/load";
import { rwkv7 } from "#rwkv/models/rwkv7";
import { program } from "./command.js";
import { fixture } from "./environment.js";
import { largeCheckpoint } from "./large-checkpoint.js";
import { runScript } from "./node-process.js";
import { writable } from "./rewritten-checkpoints.js";

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "rwkv-"));
  folders.push(folder);
  return folder;
}

it("refuses stale handles, and lets them be destroyed twice", async () => {
  const library = await loadNativeLibrary();
  const pool = library.createPool(2, library.findLevel(""));
  expect(library.poolThreads(pool)).toBe(2);
  library.destroyPool(pool);
  library.destroyPool(pool);
  expect(() => library.poolThreads(pool)).toThrow("the pool has ended");
  expect(() => library.runPool(pool, 64, {})).toThrow("the pool has ended");
});

it("refuses arguments of a wrong kind", async () => {
  const library = (await loadNativeLibrary()) as unknown as Record<
    keyof NativeLibrary,
    (...args: unknown[]) => unknown
  >;
  const pool = library.createPool(1, library.findLevel(""));
  for (const [level, threads] of [[0, 0], [99, 1], [-1, 1], [0, Number.NaN], [0, 1e9], ["a", "b"], []]) {
    expect(() => library.createPool(threads, level)).toThrow("expected a number of threads and a level");
  }
  for (const address of [-1, 0, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "64", undefined]) {
    expect(() => library.runPool(pool, address, {})).toThrow("expected the address of a pass");
  }
  for (const wrong of [undefined, {}, 5, library]) {
    expect(() => library.runPool(wrong, 64, {})).toThrow("the pool has ended");
    expect(() => library.mappingAddress(wrong)).toThrow("no longer mapped");
    expect(library.destroyPool(wrong)).toBeUndefined();
    expect(() => library.addressOf(wrong)).toThrow("expected bytes");
  }
  expect(() => library.mappingAddress(pool)).toThrow("no longer mapped");
  expect(() => library.forgetMapped(pool, 0, 5)).toThrow("no longer mapped");
  expect(() => library.readAhead(pool, new Float64Array(2))).toThrow("no longer mapped");
  expect(library.mapFile(-1, 5)).toBeUndefined();
  expect(library.mapFile(1e6, 5)).toBeUndefined();
  library.destroyPool(pool);
});

it("refuses to run passes after the end", async () => {
  const machine = await createNativeMachine(2);
  await machine.dispose();
  await machine.dispose();
  await expect(machine.run(64)).rejects.toThrow("the pool has ended");
});

it("keeps kernel memory where it is, whatever is done with a view of it", async () => {
  const machine = await createNativeMachine(1);
  const { bytes } = machine.allocate(64);
  expect(() => structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] })).toThrow();
  expect(bytes.length).toBe(64);
  await machine.dispose();
});

it("ends a pass in flight when the machine is disposed of, and says so", async () => {
  const model = await load(undefined, { backend: "native", threads: 2 });
  const state = model.createState();
  const { runtime } = await openEmbedded();
  const segment = { state: runtime.createState(), tokens: new Array(128).fill(1), logits: "all" as const };
  const pass = runtime.run([segment]);
  await runtime.dispose();
  // It may have come to its end first.
  await pass.catch((error) => expect(error.message).toBe("the model was disposed while a pass was running"));
  await expect(runtime.run([segment])).rejects.toThrow("the pool has ended");
  await model.forward([{ state, tokens: [1] }]); // other models do not notice
  await model.dispose();
});

async function openEmbedded() {
  const { bindModel } = await import("#rwkv/models/versions");
  const { nativeBackend } = await import("#rwkv/backends/native/native");
  const { embeddedModel } = await import("#rwkv/platform/node/files");
  const checkpoint = await openCheckpoint(embeddedModel);
  const runtime = await nativeBackend.open(bindModel(checkpoint), { threads: 2 });
  await checkpoint.close();
  return { runtime };
}

it.runIf(process.platform === "linux")("gives back threads and memory of models that are dropped", async () => {
  const ending = await runScript(
    `
      import { readdirSync, readFileSync } from "node:fs";
      const { load } = await import(new URL("index.js", dist));
      const threads = () => readdirSync("/proc/self/task").length;
      const maps = () => readFileSync("/proc/self/maps", "utf8").split(".safetensors").length - 1;
      const use = async () => {
        const model = await load(undefined, { backend: "native", threads: 3 });
        await model.generate("Once", { maxTokens: 3 }).text();
      };
      const warm = await load(undefined, { backend: "native", threads: 3 });
      await warm.generate("Once", { maxTokens: 3 }).text();
      await warm.dispose();
      const before = threads();
      await use();
      await use();
      for (let i = 0; i < 100 && (threads() > before || maps() > 0); i++) {
        globalThis.gc();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      console.log(threads() <= before, maps());
    `,
    { flags: ["--expose-gc"] },
  );
  expect(ending).toEqual({ code: 0, signal: null, output: "true 0\n", errors: "" });
});

/** Bytes of a file's mappings that are in memory. */
async function residentOf(path: string): Promise<number> {
  const parts = (await readFile("/proc/self/smaps", "utf8")).split(/^(?=[0-9a-f]+-)/m);
  const ofFile = parts.filter((part) => part.includes(path));
  return ofFile.reduce((sum, part) => sum + Number(/^Rss: +(\d+) kB$/m.exec(part)![1]) * 1024, 0);
}

it.runIf(process.platform === "linux")("takes no memory for what was read to make something else of it", async () => {
  const path = join(await temporaryFolder(), "large.pth");
  await writeFile(path, await largeCheckpoint());
  const resident = () => residentOf(path);
  const size = (await stat(path)).size;
  const prompt = new Array(20).fill(1);
  const logitsOf = async (model: Model) => (await model.forward([{ state: model.createState(), tokens: prompt }]))[0];
  const quantized = await load(path, { backend: "native", dtype: "q8" });
  expect(await resident()).toBeLessThan(0.05 * size);
  const logits = await logitsOf(quantized);
  const stored = await load(path, { backend: "native" });
  await logitsOf(stored);
  // What is used as it lies stays, of the same file, too.
  expect(await resident()).toBeGreaterThan(0.8 * size);
  expect(await logitsOf(quantized)).toEqual(logits);
  await quantized.dispose();
  await stored.dispose();
});

it.runIf(process.platform === "linux")("brings in no pages of matrices that are copied", async () => {
  // The small matrices of RWKV-7 are stored transposed, and with these ranks they are a third of the file.
  const ranks = { decayRank: 512, learningRateRank: 512, valueRank: 512, gateRank: 512 };
  const size = { layers: 4, width: 512, hidden: 2048, vocabulary: 320, heads: 8, ...ranks };
  const { tensors } = syntheticCheckpoint({ name: "wide ranks", definition: rwkv7, size }, "bf16");
  const path = join(await temporaryFolder(), "ranks.pth");
  await writePth(path, writable({ tensors }));
  const whole = (await stat(path)).size;
  const model = await load(path, { backend: "native" });
  await model.forward([{ state: model.createState(), tokens: new Array(20).fill(1) }]);
  const resident = (await residentOf(path)) / whole;
  expect(resident).toBeGreaterThan(0.55);
  expect(resident).toBeLessThan(0.75);
  await model.dispose();
});

it.runIf(process.platform === "linux")("leaves nothing behind after many models", async () => {
  const ending = await runScript(`
    import { readdirSync } from "node:fs";
    const { load } = await import(new URL("index.js", dist));
    const use = async () => {
      const model = await load(undefined, { backend: "native", threads: 2 });
      await model.generate("Once", { maxTokens: 2 }).text();
      await model.dispose();
    };
    await use();
    const count = () => readdirSync("/proc/self/task").length + readdirSync("/proc/self/fd").length;
    const before = count();
    for (let i = 0; i < 30; i++) await use();
    console.log(count() - before);
  `);
  expect(ending).toEqual({ code: 0, signal: null, output: "0\n", errors: "" });
});

it("declares the functions of Node-API as Node itself does", async () => {
  const folder = await temporaryFolder();
  const headers = fileURLToPath(new URL("../node_modules/node-api-headers/include", import.meta.url));
  const source = fileURLToPath(new URL("../kernels/addon.c", import.meta.url));
  const compile = async (name: string, flags: readonly string[]) => {
    const object = join(folder, name);
    const common = ["-std=gnu17", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror"];
    await promisify(execFile)(process.env["CC"] ?? "cc", [...common, ...flags, "-c", "-o", object, source]);
    return readFile(object);
  };
  const own = await compile("own.o", []);
  const official = await compile("official.o", ["-DRWKV_OFFICIAL_NODE_API", "-DNAPI_VERSION=8", `-I${headers}`]);
  expect(own.equals(official)).toBe(true);
});

it("maps the file that was opened, not another that has taken its name", async () => {
  const folder = await temporaryFolder();
  const [path, other] = [join(folder, "model.safetensors"), join(folder, "other")];
  await copyFile(fixture("letters.safetensors"), path);
  const bytes = await readFile(path);
  const header = 8 + Number(bytes.readBigUInt64LE(0));
  await writeFile(other, bytes.fill(0, header)); // as long, with the same tensors
  const options = { backend: "native", tokenizer: "bytes", threads: 1 } as const;
  const checkpoint = await openCheckpoint(path);
  await rename(other, path);
  const model = await loadCheckpoint(checkpoint, options);
  const expected = await load(fixture("letters.safetensors"), options);
  const logits = async (of: Model) => of.forward([{ state: of.createState(), tokens: [1, 2] }]);
  expect(await logits(model)).toEqual(await logits(expected));
  await model.dispose();
  await expected.dispose();
});

/** A script that stands for a compiler, counts its calls, and fails with a message where one is given. */
async function fakeCompiler(folder: string, failure?: string): Promise<string> {
  const path = join(folder, "compiler");
  const log = `echo called >> ${join(folder, "calls")}\n`;
  await writeFile(path, `#!/bin/sh\n${log}${failure ? `echo "${failure}" >&2; exit 1` : 'exec "$@"'}\n`);
  await chmod(path, 0o755);
  return path;
}

const calls = async (folder: string) => (await readdir(folder)).includes("calls");

const report = `
  const { loadNativeLibrary } = await import(new URL("backends/native/native-library.js", dist));
  await loadNativeLibrary().then(() => console.log("loaded"), (error) => console.log(error.message));
`;

it.runIf(process.platform !== "win32")("remembers that a compiler failed, until it changes", async () => {
  const folder = await temporaryFolder();
  const compiler = await fakeCompiler(folder, "x.c:1: fatal error: stdint.h: No such file");
  const env = { CC: `${compiler} --option`, XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  const first = await runScript(report, { env });
  expect(first.output).toBe(
    `native kernels cannot be compiled with ${compiler} --option: x.c:1: fatal error: stdint.h: No such file\n`,
  );
  expect(await calls(folder)).toBe(true);
  await rm(join(folder, "calls"));
  const second = await runScript(report, { env });
  expect(second.output).toContain("fatal error: stdint.h: No such file (remembered for a day in ");
  expect(await calls(folder)).toBe(false);
  await fakeCompiler(folder, "another error, of a new version");
  expect((await runScript(report, { env })).output).toContain("another error, of a new version\n");
  expect(await calls(folder)).toBe(true);
});

/** A script that stands for a compiler that starts another and does not end; both write their ids into a file. */
async function endlessCompiler(folder: string): Promise<string> {
  const path = join(folder, "compiler");
  await writeFile(path, `#!/bin/sh\nsleep 600 & echo $$ $! >> ${join(folder, "processes")}\nwait\n`);
  await chmod(path, 0o755);
  return path;
}

/** Which of the processes run whose ids are in the file; those that have ended may wait for init to notice. */
async function runningProcesses(folder: string): Promise<string[]> {
  const ids = (await readFile(join(folder, "processes"), "utf8")).trim().split(/\s+/);
  expect(ids.length).toBeGreaterThanOrEqual(2);
  const states = await Promise.all(ids.map((id) => readFile(`/proc/${id}/stat`, "utf8").catch(() => "")));
  return ids.filter((_, i) => states[i] !== "" && !/\) Z /.test(states[i]!));
}

it.runIf(process.platform === "linux")("ends a compiler that takes too long with all that it started", async () => {
  const folder = await temporaryFolder();
  const env = { CC: await endlessCompiler(folder), XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  // Minutes pass in seconds.
  const hurried = `
    const later = setTimeout;
    globalThis.setTimeout = (call, time) => later(call, time / 500);
    ${report}
  `;
  const late = `native kernels cannot be compiled with ${env.CC}: the compiler did not end in time`;
  expect((await runScript(hurried, { env })).output).toBe(`${late}\n`);
  expect(await runningProcesses(folder)).toEqual([]);
  // The machine may have had much else to do, and soon has less.
  expect((await runScript(report, { env })).output).toContain(`${late} (remembered for ten minutes in `);
  const [noted = ""] = (await readdir(join(folder, "rwkv"))).filter((name) => name.endsWith(".failed.json"));
  const note = JSON.parse(await readFile(join(folder, "rwkv", noted), "utf8"));
  await writeFile(join(folder, "rwkv", noted), JSON.stringify({ ...note, time: note.time - 11 * 60 * 1000 }));
  expect((await runScript(hurried, { env })).output).toBe(`${late}\n`);
});

it.runIf(process.platform === "linux").each(["SIGINT", "SIGTERM"] as const)(
  "ends a compiler with the process that %s ends",
  async (signal) => {
    const folder = await temporaryFolder();
    const env = { ...process.env, CC: await endlessCompiler(folder), XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
    const child = spawn(process.execPath, [program, "generate"], { env });
    const ended = new Promise((resolve) => child.on("exit", (_, by) => resolve(by)));
    while (!(await readdir(folder)).includes("processes")) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill(signal);
    expect(await ended).toBe(signal);
    await expect.poll(() => runningProcesses(folder)).toEqual([]);
  },
);

it("says that there is no compiler, and tries again when asked again", async () => {
  const folder = await temporaryFolder();
  const ending = await runScript(
    `${report} process.env.CC = "also-missing gcc"; await loadNativeLibrary().catch((error) => console.log(error.message));`,
    { env: { CC: "no-such-compiler -m64", XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" } },
  );
  expect(ending.output.split("\n")).toEqual([
    "native kernels cannot be compiled with no-such-compiler -m64: no such compiler on this machine",
    "native kernels cannot be compiled with also-missing gcc: no such compiler on this machine",
    "",
  ]);
});

it.runIf(process.platform !== "win32")("tries again when the compiler changes that another one calls", async () => {
  const [folder, other] = [await temporaryFolder(), await temporaryFolder()];
  const cache = await fakeCompiler(folder);
  const compiler = await fakeCompiler(other, "error: of the old compiler");
  const env = { CC: `${cache} ${compiler}`, XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  expect((await runScript(report, { env })).output).toContain("error: of the old compiler\n");
  await fakeCompiler(other, "error: of the new compiler");
  expect((await runScript(report, { env })).output).toContain("error: of the new compiler\n");
});

it.runIf(process.platform === "linux")("takes a library that was built of these sources, and no other", async () => {
  const folder = await temporaryFolder();
  const stamp = await libraryStamp(prebuiltRecipe("linux", process.arch)!);
  const path = join(folder, prebuiltName("linux", process.arch, stamp));
  const env = { CC: "no-such-compiler", XDG_CACHE_HOME: folder, RWKV_PREBUILT: folder };
  // An addon that does nothing suffices to see which library is taken.
  await writeFile(`${path}.c`, "void* napi_register_module_v1(void* env, void* exports) { return exports; }");
  await promisify(execFile)("cc", ["-shared", "-fPIC", "-o", path, `${path}.c`]);
  expect((await runScript(report, { env })).output).toBe("loaded\n");

  await writeFile(path, "no library");
  const missing = "native kernels cannot be compiled with no-such-compiler: no such compiler on this machine";
  const said = (await runScript(report, { env })).output;
  expect(said).toContain(`${missing}; those that came with the package: ${path} cannot be loaded (`);
  expect(said.length).toBeLessThan(500);

  await rename(path, join(folder, prebuiltName("linux", process.arch, "0123456789abcdef")));
  expect((await runScript(report, { env })).output).toBe(`${missing}\n`);
});

it.runIf(process.platform === "linux")("compiles again what was damaged in the cache", async () => {
  const folder = await temporaryFolder();
  const cache = join(folder, "rwkv");
  // It makes an addon that does nothing, whatever it is asked to compile, and notes when it links.
  const [compiler, source] = [join(folder, "compiler"), join(folder, "addon.c")];
  await writeFile(source, "void* napi_register_module_v1(void* env, void* exports) { return exports; }");
  await writeFile(
    compiler,
    `#!/bin/sh
for last; do [ "$before" = -o ] && out="$last"; before="$last"; done
case "$*" in *-shared*) echo link >> ${join(folder, "links")}; exec cc -shared -fPIC -o "$out" ${source};; *) : > "$out";; esac
`,
  );
  await chmod(compiler, 0o755);
  const env = { CC: compiler, XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  const run = async () => {
    const { output, code, signal } = await runScript(report, { env });
    const links = (await readFile(join(folder, "links"), "utf8")).trim().split("\n").length;
    return { output, code, signal, links, files: await readdir(cache) };
  };
  const first = await run();
  expect(first).toMatchObject({ output: "loaded\n", code: 0, links: 1 });
  expect(first.files.length).toBe(1);
  expect(await run()).toEqual(first);
  const path = join(cache, first.files[0]!);
  const whole = await readFile(path);
  // Cut off, it would end the process by a signal; of another program, it would be loaded.
  for (const [i, damaged] of [
    whole.subarray(0, whole.length / 2),
    new Uint8Array(),
    await readFile("/bin/true"),
  ].entries()) {
    await writeFile(path, damaged);
    expect(await run()).toEqual({ ...first, links: 2 + i });
    expect(await readFile(path)).toEqual(whole);
  }
});

/** A compiler of an addon that does nothing, which notes when it links. It takes its time, and hangs where a file says so. */
async function slowCompiler(folder: string): Promise<string> {
  const [path, source] = [join(folder, "compiler"), join(folder, "addon.c")];
  await writeFile(source, "void* napi_register_module_v1(void* env, void* exports) { return exports; }");
  await writeFile(
    path,
    `#!/bin/sh
[ -e ${join(folder, "hang")} ] && { echo $$ $$ >> ${join(folder, "processes")}; exec sleep 600; }
for last; do [ "$before" = -o ] && out="$last"; before="$last"; done
case "$*" in
*-shared*) echo link >> ${join(folder, "links")}; sleep 0.3; exec cc -shared -fPIC -o "$out" ${source};;
*) : > "$out";;
esac
`,
  );
  await chmod(path, 0o755);
  return path;
}

const links = async (folder: string) => (await readFile(join(folder, "links"), "utf8")).trim().split("\n").length;

it.runIf(process.platform === "linux")("is compiled by one of several processes that start at once", async () => {
  const folder = await temporaryFolder();
  const env = { CC: await slowCompiler(folder), XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  const endings = await Promise.all(Array.from({ length: 4 }, () => runScript(report, { env })));
  for (const ending of endings) expect(ending).toEqual({ code: 0, signal: null, output: "loaded\n", errors: "" });
  expect(await links(folder)).toBe(1);
  expect((await readdir(join(folder, "rwkv"))).filter((name) => !name.endsWith(".node"))).toEqual([]);
});

it.runIf(process.platform === "linux")("is compiled by another when who began it was killed", async () => {
  const folder = await temporaryFolder();
  const env = { CC: await slowCompiler(folder), XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  await writeFile(join(folder, "hang"), "");
  const hanging = `
    import { existsSync } from "node:fs";
    const looking = setInterval(() => {
      if (existsSync(${JSON.stringify(join(folder, "processes"))})) console.log(process.pid, "ready");
    }, 50);
    ${report}`;
  const killed = await runScript(hanging, { env, signal: "SIGKILL" });
  expect(killed.signal).toBe("SIGKILL");
  // Its compilers go on, and are nobody's.
  for (const id of await runningProcesses(folder)) process.kill(Number(id), "SIGKILL");
  await rm(join(folder, "hang"));
  expect((await runScript(report, { env })).output).toBe("loaded\n");
  expect(await links(folder)).toBe(1);
});

it.runIf(process.platform === "linux")("is tried again when a cleaner took what was being compiled", async () => {
  const folder = await temporaryFolder();
  const path = join(folder, "compiler");
  await writeFile(
    path,
    `#!/bin/sh
for last; do [ "$before" = -o ] && out="$last"; before="$last"; done
echo called >> ${join(folder, "calls")}
rm -rf "$(dirname "$out")"; echo "fatal error: cannot create $out" >&2; exit 1
`,
  );
  await chmod(path, 0o755);
  const env = { CC: path, XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  for (let i = 0; i < 2; i++) {
    const { output } = await runScript(report, { env });
    expect(output).toMatch(
      /^native kernels cannot be compiled with .*: files were removed from .* while it compiled\n$/,
    );
    expect(await calls(folder)).toBe(true);
    await rm(join(folder, "calls"));
  }
  expect(await readdir(join(folder, "rwkv"))).toEqual([]);
});

it.runIf(process.platform === "linux")("says in a short line how a compiler failed that says nothing", async () => {
  const folder = await temporaryFolder();
  const env = { XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" };
  const said = async (CC: string) => (await runScript(report, { env: { ...env, CC } })).output;
  const failed = "native kernels cannot be compiled with /bin/false: it ended with exit code 1 and no message";
  expect(await said("/bin/false")).toBe(`${failed}\n`);
  expect(await said("/bin/false")).toContain(`${failed} (remembered for a day in `);
  expect((await said(`${await fakeCompiler(folder, `error: ${"long ".repeat(300)}`)}`)).length).toBeLessThan(400);
});

it.runIf(process.platform !== "win32")("sweeps what compiles have left that were ended an hour ago", async () => {
  const folder = await temporaryFolder();
  const cache = join(folder, "rwkv");
  const parts = ["kernels.part-old", "kernels.part-new", "others.part-old"].map((name) => join(cache, name));
  for (const part of parts) {
    await mkdir(part, { recursive: true });
    await writeFile(join(part, "native.o"), "");
  }
  const longAgo = Date.now() / 1000 - 2 * 60 * 60;
  for (const part of [parts[0]!, parts[2]!]) await utimes(part, longAgo, longAgo);
  const compiler = await fakeCompiler(folder, "error: any");
  await runScript(report, { env: { CC: compiler, XDG_CACHE_HOME: folder, RWKV_PREBUILT: "" } });
  const left = await readdir(cache);
  expect(left.filter((name) => name.includes(".part-")).sort()).toEqual(["kernels.part-new", "others.part-old"]);
});
