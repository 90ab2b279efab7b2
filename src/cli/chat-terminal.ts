// Where the user of a conversation types: a terminal, with its line editor and its pasting, or a pipe.

import { createInterface } from "node:readline";
import { type ChatInput, ChatLines } from "./chat-input.js";
import { stdinLines } from "./terminal.js";

/** Asks the terminal to say where a pasted text begins and ends. */
const bracketedPaste = { on: "\x1b[?2004h", off: "\x1b[?2004l" };

/**
 * What the user gives, until the end of the input.
 *
 * @param stop called at Ctrl-C: stops the answer in progress; false if there is none
 */
export function chatInputs(stop: () => boolean): AsyncGenerator<ChatInput, void, void> {
  return process.stdin.isTTY && process.stderr.isTTY ? typedInputs(stop) : pipedInputs(stop);
}

async function* pipedInputs(stop: () => boolean): AsyncGenerator<ChatInput, void, void> {
  const interrupt = () => {
    if (!stop()) process.exit(130);
  };
  process.on("SIGINT", interrupt);
  try {
    const lines = new ChatLines();
    for await (const line of stdinLines()) {
      const input = lines.push(line);
      if (input) yield input;
    }
    const last = lines.end();
    if (last) yield last;
  } finally {
    process.off("SIGINT", interrupt);
  }
}

async function* typedInputs(stop: () => boolean): AsyncGenerator<ChatInput, void, void> {
  const { stdin, stderr } = process;
  const terminal = createInterface({ input: stdin, output: stderr, crlfDelay: Number.POSITIVE_INFINITY });
  const lines = new ChatLines();
  const ready: ChatInput[] = [];
  let pasting = false;
  let ended = false;
  let wake = () => {};
  const take = (input: ChatInput | undefined) => {
    if (input) ready.push(input);
    wake();
  };
  const prompt = () => {
    terminal.setPrompt(lines.open ? "... " : "> ");
    terminal.prompt();
  };
  const keypress = (_: unknown, key: { name?: string } | undefined) => {
    if (key?.name === "paste-start") pasting = true;
    if (key?.name === "paste-end") pasting = false;
  };
  const interrupt = () => {
    if (stop()) return;
    const begun = lines.open || terminal.line !== "";
    lines.discard();
    terminal.write(null, { ctrl: true, name: "e" });
    terminal.write(null, { ctrl: true, name: "u" });
    stderr.write(begun ? "\n" : "\n(/quit or Ctrl-D leaves)\n");
    prompt();
  };
  const leavePasting = () => stderr.write(bracketedPaste.off);
  stdin.on("keypress", keypress);
  terminal.on("line", (line) => take(lines.push(line, pasting)));
  terminal.on("SIGINT", interrupt);
  terminal.on("close", () => {
    ended = true;
    take(lines.end());
  });
  process.on("SIGINT", interrupt);
  process.once("exit", leavePasting);
  stderr.write(bracketedPaste.on);
  try {
    for (;;) {
      const input = ready.shift();
      if (input) yield input;
      else if (ended) {
        stderr.write("\n"); // the shell's prompt begins on a line of its own
        return;
      } else {
        prompt();
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    terminal.close();
    stdin.off("keypress", keypress);
    process.off("SIGINT", interrupt);
    process.off("exit", leavePasting);
    leavePasting();
  }
}
