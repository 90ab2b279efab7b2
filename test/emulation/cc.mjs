#!/usr/bin/env node
// A C compiler for tests (CC): the machine's own, for which every processor has AVX2, and AVX-512 and tiles are emulated by
// avx512.h and tiles.h. Only the levels of AVX-512 are meant to be used; the others are compiled in the shortest time.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const header = (name) => ["-include", fileURLToPath(new URL(name, import.meta.url))];
const given = process.argv.slice(2);
const emulates = given.includes("-mavx512f");
const kept = given.filter((argument) => !argument.startsWith("-mavx512") && !/^-O\d$/.test(argument));
const added = emulates
  ? ["-O1", "-w", ...header("avx512.h"), `-DEMULATE_VNNI=${Number(given.includes("-mavx512vnni"))}`]
  : ["-O0", "-D__builtin_cpu_supports(name)=1"];
const { status, error } = spawnSync("cc", [...added, ...header("tiles.h"), ...kept], { stdio: "inherit" });
if (error) throw error;
process.exit(status ?? 1);
