#!/usr/bin/env node
// A C compiler for tests (CC): the machine's own, with the sanitizers of addresses and of undefined behaviour, whose first
// finding ends the process. Levels of instruction sets that are not tested (TESTED_LEVELS) are compiled in the shortest time.

import { spawnSync } from "node:child_process";

const given = process.argv.slice(2).filter((argument) => !/^-O\d$/.test(argument));
const sanitizers = [
  "-O1",
  "-g1",
  "-fno-omit-frame-pointer",
  "-fsanitize=address,undefined",
  "-fno-sanitize-recover=all",
];
const [, level] = /-DLEVEL=(\w+)/.exec(given.join(" ")) ?? [];
const isTested = level === undefined || process.env.TESTED_LEVELS.split(",").includes(level);
const { status, error } = spawnSync("cc", [...(isTested ? sanitizers : ["-O0"]), ...given], { stdio: "inherit" });
if (error) throw error;
process.exit(status ?? 1);
