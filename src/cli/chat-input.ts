// Turns the lines that a user types into commands and messages. A message may have several lines: between """ and """, where each
// but the last ends in a backslash, or pasted.

/** The commands, and whether they take an argument. */
const commands = { help: false, reset: false, retry: false, undo: false, save: true, load: true, quit: false } as const;

export type CommandName = keyof typeof commands;

/** What the user wants. */
export type ChatInput =
  | { readonly kind: "message"; readonly text: string }
  | { readonly kind: "command"; readonly name: CommandName; readonly argument: string };

const quotes = '"""';

/** A message of several lines that has begun, and what its next line does. */
interface OpenMessage {
  readonly lines: string[];
  readonly by: "quotes" | "backslash" | "paste";
}

/** Puts lines together. */
export class ChatLines {
  #open: OpenMessage | undefined;

  /** Whether a message has begun that a later line ends. */
  get open(): boolean {
    return this.#open !== undefined;
  }

  /**
   * Takes a line.
   *
   * @param pasted whether the line is part of a pasted text that continues with the next line
   * @returns what it completes, if anything
   */
  push(line: string, pasted = false): ChatInput | undefined {
    if (pasted) {
      this.#open ??= { lines: [], by: "paste" };
      this.#open.lines.push(line);
      return undefined;
    }
    if (this.#open) return this.#continue(this.#open, line);
    const text = line.trim();
    if (text.startsWith(quotes)) {
      this.#open = { lines: [], by: "quotes" };
      return this.#continue(this.#open, text.slice(quotes.length));
    }
    const command = commandOf(text);
    if (command) return command;
    if (isContinued(text)) {
      this.#open = { lines: [text.slice(0, -1)], by: "backslash" };
      return undefined;
    }
    return messageOf(text.startsWith("//") ? text.slice(1) : text);
  }

  /** The end of the input: completes a message that is open. */
  end(): ChatInput | undefined {
    const lines = this.#open?.lines ?? [];
    this.discard();
    return messageOf(lines.join("\n"));
  }

  /** Forgets a message that is open. */
  discard(): void {
    this.#open = undefined;
  }

  #continue({ lines, by }: OpenMessage, line: string): ChatInput | undefined {
    const trimmed = line.trimEnd();
    if (by === "quotes") {
      const closes = trimmed.endsWith(quotes);
      lines.push(closes ? trimmed.slice(0, -quotes.length) : line);
      return closes ? this.end() : undefined;
    }
    if (by === "backslash" && isContinued(trimmed)) {
      lines.push(trimmed.slice(0, -1));
      return undefined;
    }
    lines.push(line);
    return this.end();
  }
}

/** Only an exact command is a command, since a message may begin with a slash. */
function commandOf(text: string): ChatInput | undefined {
  const [, name = "", argument = ""] = /^\/(\w+)(?:\s+(.*))?$/.exec(text) ?? [];
  if (!Object.hasOwn(commands, name)) return undefined;
  if (argument !== "" && !commands[name as CommandName]) return undefined;
  return { kind: "command", name: name as CommandName, argument };
}

function messageOf(text: string): ChatInput | undefined {
  const trimmed = text.trim();
  return trimmed === "" ? undefined : { kind: "message", text: trimmed };
}

/** Whether a line ends in a backslash that no other one escapes. */
function isContinued(line: string): boolean {
  return (/\\*$/.exec(line) as RegExpExecArray)[0].length % 2 === 1;
}
