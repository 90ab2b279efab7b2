// Turns the lines that a user types into commands and messages. A message, or the text that a command takes, may have several
// lines: between """ and """, where each but the last ends in a backslash, or pasted.

/** The commands, and what they take: nothing, a word such as a file's name, or a text that may have several lines. */
const commands = {
  help: "nothing",
  reset: "nothing",
  retry: "nothing",
  undo: "nothing",
  ask: "text",
  instruct: "text",
  generate: "text",
  think: "word",
  save: "word",
  load: "word",
  quit: "nothing",
} as const;

export type CommandName = keyof typeof commands;

/** What the user wants. */
export type ChatInput =
  | {
      readonly kind: "message";
      readonly text: string;
      /** Whether it was typed as a command is, but is none. */
      readonly looksLikeCommand?: boolean;
    }
  | { readonly kind: "command"; readonly name: CommandName; readonly argument: string };

const quotes = '"""';

/** A message of several lines that has begun, and what its next line does. */
interface OpenMessage {
  readonly lines: string[];
  /** The command that takes it. */
  readonly command?: CommandName;
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
    const command = commandOf(text);
    if (command && commands[command.name] !== "text") return command;
    if (command) return this.#begin(command.argument, command.name);
    if (/^\/\w+$/.test(text)) return { kind: "message", text, looksLikeCommand: true };
    return this.#begin(text.startsWith("//") ? text.slice(1) : text);
  }

  /** The end of the input: completes a message that is open. */
  end(): ChatInput | undefined {
    const { lines = [], command } = this.#open ?? {};
    this.discard();
    return inputOf(lines.join("\n"), command);
  }

  /** Forgets a message that is open. */
  discard(): void {
    this.#open = undefined;
  }

  /** Takes the first line of a message, or of what a command takes. */
  #begin(text: string, command?: CommandName): ChatInput | undefined {
    const taker = command && { command };
    if (text.startsWith(quotes)) {
      this.#open = { lines: [], by: "quotes", ...taker };
      return this.#continue(this.#open, text.slice(quotes.length));
    }
    if (!isContinued(text)) return inputOf(text, command);
    this.#open = { lines: [text.slice(0, -1)], by: "backslash", ...taker };
    return undefined;
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
function commandOf(text: string): Extract<ChatInput, { kind: "command" }> | undefined {
  const [, name = "", argument = ""] = /^\/(\w+)(?:\s+(.*))?$/.exec(text) ?? [];
  if (!Object.hasOwn(commands, name)) return undefined;
  if (argument !== "" && commands[name as CommandName] === "nothing") return undefined;
  return { kind: "command", name: name as CommandName, argument };
}

function inputOf(text: string, command?: CommandName): ChatInput | undefined {
  const trimmed = text.trim();
  if (command) return { kind: "command", name: command, argument: trimmed };
  return trimmed === "" ? undefined : { kind: "message", text: trimmed };
}

/** Whether a line ends in a backslash that no other one escapes. */
function isContinued(line: string): boolean {
  return (/\\*$/.exec(line) as RegExpExecArray)[0].length % 2 === 1;
}
