// What a request of /v1/responses said, as it is told again with its response.

import type { InputItem } from "./answer-schemas/response.js";
import type { ResponseBody } from "./response-input.js";

/** The items of a request as they are told again, each with an id. */
export function inputItems({ input }: ResponseBody, newId: (prefix: string) => string): InputItem[] {
  const items = typeof input === "string" ? [{ role: "user" as const, content: input }] : input;
  return items.map((given) => {
    if ("role" in given) {
      const type: "output_text" | "input_text" = given.role === "assistant" ? "output_text" : "input_text";
      const parts = typeof given.content === "string" ? [{ type, text: given.content }] : given.content;
      return { id: newId("msg"), type: "message", role: given.role, status: "completed", content: parts };
    }
    if (given.type === "reasoning") return { id: newId("rs"), type: "reasoning", summary: [] };
    return { id: newId("item"), status: "completed", ...given };
  });
}
