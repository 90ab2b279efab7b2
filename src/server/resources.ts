// All resources of the API: a file each in resources/. To add one, write the file and list it here.

import { batches } from "./resources/batches.js";
import { chatCompletions } from "./resources/chat-completions.js";
import { choose } from "./resources/choose.js";
import { completions } from "./resources/completions.js";
import { embeddings } from "./resources/embeddings.js";
import { files } from "./resources/files.js";
import { health } from "./resources/health.js";
import { messages } from "./resources/messages.js";
import { models } from "./resources/models.js";
import { page } from "./resources/page.js";
import { responses } from "./resources/responses.js";
import { states } from "./resources/states.js";
import { tokens } from "./resources/tokens.js";
import type { Route } from "./route.js";
import type { Services } from "./services.js";

const resources: readonly ((services: Services) => Route[])[] = [
  chatCompletions,
  completions,
  responses,
  states,
  choose,
  messages,
  embeddings,
  files,
  batches,
  models,
  tokens,
  health,
  page,
];

/** The routes of all resources. */
export function allRoutes(services: Services): Route[] {
  return resources.flatMap((resource) => resource(services));
}
