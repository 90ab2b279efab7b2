#!/usr/bin/env node
// A C compiler for tests (CC): the machine's own, with the sanitizers of addresses and of undefined behaviour, whose first
// finding ends the process.

import { spawnSync } from "node:child_process";

const given = process.argv.slice(2).filter((argument) => !/^-O\d$/.test(argument));
const sanitizers = [
  "-O1",
  "-g1",
  "-fno-omit-frame-pointer",
  "-fsanitize=address,undefined",
  "-fno-sanitize-recover=all",
];
const { status, error } = spawnSync("cc", [...sanitizers, ...given], { stdio: "inherit" });
if (error) throw error;
process.exit(status ?? 1);
