// What conversations on the command line have in common, whether the model is here or on a server.

import { RwkvError } from "../errors.js";
import type { ChatInput } from "./chat-input.js";
import { chatInputs } from "./chat-terminal.js";
import { note } from "./terminal.js";

/**
 * Handles what the user gives until /quit or the end of the input. An error of one input does not end the conversation.
 *
 * @param stop called at Ctrl-C: stops the answer in progress; false if there is none
 */
export async function handleInputs(stop: () => boolean, handle: (input: ChatInput) => Promise<void>): Promise<void> {
  note("/help lists the commands; Ctrl-D leaves.");
  for await (const input of chatInputs(stop)) {
    if (input.kind === "command" && input.name === "quit") break;
    try {
      await handle(input);
    } catch (error) {
      if (!(error instanceof RwkvError)) throw error;
      note(`error: ${error.message}`);
    }
  }
}

/** @throws RwkvError with the message where there is no argument */
export function needed(argument: string, message: string): string {
  if (!argument) throw new RwkvError(message);
  return argument;
}
