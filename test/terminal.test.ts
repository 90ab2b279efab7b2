// What the command line draws: the status line and tables.

import { expect, test } from "vitest";
import { AnswerPrinter, type Output } from "#rwkv/cli/answer-printer";
import { bar, StatusLine, type Terminal } from "#rwkv/cli/status-line";
import { textTable } from "#rwkv/cli/text-table";

/** What a terminal shows on its line after what was written to it; it knows the two sequences of the status line. */
function terminal(isTTY: boolean, columns: number): { stream: Terminal; shown: () => string; written: () => string } {
  let written = "";
  const write = (text: string) => {
    written += text;
    return true;
  };
  const shown = () => {
    let line = "";
    // biome-ignore lint/suspicious/noControlCharactersInRegex: what moves the cursor and clears begins with one
    for (const [, sequence, text] of written.matchAll(/\x1b\[(1G|0K)|([^\x1b]+)/g)) {
      if (sequence === "1G") line = "";
      else if (text !== undefined) line += text;
    }
    return line;
  };
  return { stream: { isTTY, columns, write } as unknown as Terminal, shown, written: () => written };
}

test("a status line is drawn over itself, no wider than the terminal, and taken away", () => {
  const { stream, shown } = terminal(true, 10);
  const line = new StatusLine(stream);
  line.draw("a long line of text");
  expect(shown()).toBe("a long li");
  line.draw("at once again"); // not all of many in a short time
  expect(shown()).toBe("a long li");
  line.clear();
  expect(shown()).toBe("");
  line.draw("next");
  expect(shown()).toBe("next");
  line.clear();
  expect(process.listeners("exit").some((listener) => String(listener).includes("this.clear()"))).toBe(false);
});

test("nothing is drawn where there is no terminal", () => {
  const { stream, written } = terminal(false, 80);
  const line = new StatusLine(stream);
  line.draw("text");
  line.clear();
  expect(written()).toBe("");
});

test("bars are full at 1, empty at 0, and stay in their width", () => {
  expect([0, 0.5, 1, 2, -1].map((share) => bar(share, 4))).toEqual(["----", "==--", "====", "====", "----"]);
});

test("thoughts are dimmed in a terminal, and the answer begins on a line of its own", () => {
  const printed = (isTTY: boolean, shows: boolean) => {
    let text = "";
    const write = (piece: string) => {
      text += piece;
      return true;
    };
    const printer = new AnswerPrinter(shows, { stdout: { write }, stderr: { write, isTTY } } as unknown as Output);
    printer.print({ thought: "Hm", text: "" });
    printer.print({ thought: ".", text: "" });
    expect(printer.isEmpty).toBe(true);
    printer.print({ thought: "", text: "Yes" });
    expect(printer.isEmpty).toBe(false);
    return text;
  };
  expect(printed(false, true)).toBe("Hm.\nYes");
  expect(printed(true, true)).toBe("\x1b[2mHm\x1b[22m\x1b[2m.\x1b[22m\nYes");
  expect(printed(false, false)).toBe("(thinking)\nYes");
});

test("columns of a table are as wide as their widest cells", () => {
  const rows = [
    ["", "time", "token"],
    ["rwkv4", "T d", "1.00 (1)"],
    ["transformer", "T2 d"],
  ];
  expect(textTable(rows, [2])).toEqual([
    "             time     token",
    "rwkv4        T d   1.00 (1)",
    "transformer  T2 d",
  ]);
});
