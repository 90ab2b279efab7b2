// Answers requests as a server elsewhere would, whose model this process has, too: under its names, with its limits, on the places of this
// application.

import { answersAs } from "./answering.js";
import type { AnswersFor } from "./answers-for.js";
import type { ResolvedAppOptions } from "./options.js";
import { allRoutes } from "./resources.js";
import type { Route } from "./route.js";
import { ServedModel } from "./served-model.js";
import type { Services } from "./services.js";

/** How many kinds of servers are remembered. */
const remembered = 8;

/** Routes as those of a server. */
interface Guise {
  readonly routes: readonly Route[];
  readonly services: Services;
}

/** What another has to know to answer for this server. @param name of its model */
export function answersForServer(name: string, options: ResolvedAppOptions): Omit<AnswersFor, "owner"> {
  const { aliases, sampling, format, limits } = options;
  const { bodyBytes, promptTokens, maxTokens } = limits;
  return { name, aliases, sampling, ...(format && { format }), limits: { bodyBytes, promptTokens, maxTokens } };
}

/** What answers requests for servers. */
export function fetchesFor(services: Services): (server: AnswersFor) => (request: Request) => Promise<Response> {
  /** By what they are, those that were made first before others. */
  const guises = new Map<string, Guise>();
  return ({ owner, ...server }) => {
    const key = JSON.stringify(server);
    const guise = guises.get(key) ?? guiseOf(server, services);
    guises.set(key, guise);
    if (guises.size > remembered) guises.delete(guises.keys().next().value as string);
    return answersAs(owner, guise.routes, guise.services);
  };
}

function guiseOf(
  { name, aliases, sampling, format, limits: own }: Omit<AnswersFor, "owner">,
  services: Services,
): Guise {
  const limits = { ...services.options.limits, ...own };
  const changed: Services = {
    ...services,
    served: new ServedModel(services.model, name, aliases),
    options: { ...services.options, sampling, format, limits },
    inference: services.inference.within(limits),
  };
  return { routes: allRoutes(changed), services: changed };
}
