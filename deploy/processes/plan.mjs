// What compose.yaml, the balancer's template and Prometheus' configuration come to for programs of this machine: addresses and paths of
// containers are replaced by those that are here, and nothing else is.

import { readFile } from "node:fs/promises";
import { parse } from "yaml";

const folder = new URL("../", import.meta.url);

/** A file of deploy/ as text. */
export const deployed = (name) => readFile(new URL(name, folder), "utf8");

/**
 * The services of compose.yaml.
 *
 * @param variables what stands for ${NAME} in it; those that are not given have their defaults
 */
export async function composeServices(variables = {}) {
  const filled = (value) => {
    if (typeof value === "string") {
      return value.replace(/\$\{(\w+)(?::-([^}]*))?\}/g, (_, name, fallback = "") => variables[name] ?? fallback);
    }
    if (Array.isArray(value)) return value.map(filled);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, filled(one)]));
  };
  const { services } = filled(parse(await deployed("compose.yaml"), { merge: true }));
  return services;
}

/** Replaces what stands before, by what comes after: names of hosts with ports, and paths. */
export function replaced(text, places) {
  return Object.entries(places).reduce((all, [from, to]) => all.replaceAll(from, to), text);
}

/** The balancer's configuration, as a whole file for nginx. @param servers the addresses of servers */
export async function nginxConfiguration({ listen, servers, folder }) {
  const { nginx } = await composeServices();
  const [, about] = /^server server:8080 (.*);$/.exec(nginx.environment.RWKV_SERVERS);
  const lines = servers.map((address) => `server ${address} ${about};`).join("\n  ");
  const balancer = replaced(await deployed("nginx.conf.template"), {
    "${RWKV_SERVERS}": lines,
    "${RWKV_LISTEN}": listen,
  });
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log ${folder}/nginx.log warn;
events { worker_connections 1024; }
http {
access_log off;
${paths.map((name) => `${name}_temp_path ${folder}/${name};`).join("\n")}
${balancer}}
`;
}

/** Prometheus' configuration with servers that are named. JSON is YAML. @param scrapeSeconds how often it asks; by default as it is there */
export async function prometheusConfiguration({ servers, keyFile, rulesFile, scrapeSeconds }) {
  const { global, scrape_configs: jobs } = parse(await deployed("prometheus/prometheus.yml"));
  const every = scrapeSeconds && `${scrapeSeconds}s`;
  return JSON.stringify({
    global: { ...global, ...(every && { scrape_interval: every, evaluation_interval: every, scrape_timeout: every }) },
    rule_files: [rulesFile],
    scrape_configs: jobs.map(({ dns_sd_configs: _, ...job }) => ({
      ...job,
      authorization: { credentials_file: keyFile },
      static_configs: [{ targets: servers }],
    })),
  });
}
