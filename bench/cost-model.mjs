// What conversations cost, and where each part of a topology is full: a model whose assumptions are options, with defaults that were
// measured (bench/cost-check.mjs holds it against a run). Prints the tables of docs/scale.md, or with --sheet that of deploy/capacity.md.
//   node bench/cost-model.mjs [--sheet] [--turns 6] [--answer 200] ...; --help lists all

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** Assumptions: default, unit, what it is. */
export const assumptions = {
  turns: [6, "", "turns of a conversation"],
  message: [60, "tokens", "of a message, and what the format puts around it"],
  answer: [200, "tokens", "of an answer"],
  peak: [3, "x", "load of the busiest minutes against the day's mean"],
  between: [90, "s", "from a turn's begin to the next one's"],
  elsewhere: [
    1,
    "",
    "share of turns whose state is not in the memory of the server that gets them; 0 with a consistent hash",
  ],
  kept: [3, "states", "that a turn puts into the cache, and into Redis"],
  layers: [24, "", "of the model"],
  width: [1024, "", "of the model"],
  vocabulary: [65_536, "tokens", "of the model"],
  read: [93, "tokens/s", "that a core reads of prompts"],
  write: [71, "tokens/s", "that a core writes of eight texts at once"],
  use: [0.7, "", "share of cores' time that may be taken at the busiest"],
  cores: [16, "", "of a machine"],
  thread: [1, "ms", "of a server's main thread for a token that is written"],
  pack: [10, "ms", "of a server's main thread for a MB of states to or from Redis"],
  proxy: [0.03, "ms", "of a core of nginx's for a token that is streamed"],
  get: [1200, "MB/s", "of states that one Redis gives"],
  set: [640, "MB/s", "of states that one Redis takes"],
  network: [10, "Gbit/s", "of a machine, of which 94 % carry data"],
  memory: [64, "GB", "of states in one Redis"],
};

/** The defaults. */
export const defaults = Object.fromEntries(Object.entries(assumptions).map(([name, [value]]) => [name, value]));

const day = 86_400;

/** Bytes of a state with its logits: RWKV-7 with heads of 64 channels, float32. */
export const stateBytes = ({ layers, width, vocabulary }) => 4 * (layers * (2 * width + 64 * width) + vocabulary);

/** Weights of an RWKV-7 without its embedding, which is looked up and not multiplied: about 12 width² a layer, and the head. */
export const multipliedWeights = ({ layers, width, vocabulary }) => 12 * layers * width ** 2 + width * vocabulary;

/** What a turn takes of each part. */
export function costOfTurn(given) {
  const { turns, message, answer, read, write, kept, elsewhere, thread, pack, proxy, get, set, network } = given;
  const state = stateBytes(given);
  const [fetched, stored] = [elsewhere * state, kept * state];
  const packSeconds = ((fetched + stored) / 1e6) * (pack / 1000);
  return {
    coreSeconds: message / read + answer / write + packSeconds,
    /** Of the last one, were its state gone. */
    againSeconds: ((turns - 1) * (message + answer)) / read,
    threadSeconds: (answer * thread) / 1000 + packSeconds,
    proxySeconds: (answer * proxy) / 1000,
    fetched,
    stored,
    redisSeconds: fetched / (get * 1e6) + stored / (set * 1e6),
    // A network carries as much in each direction at once.
    networkSeconds: Math.max(fetched, stored) / ((network / 8) * 0.94 * 1e9),
  };
}

/** What a number of conversations a day needs at the busiest. */
export function needs(conversations, given) {
  const { turns, peak, message, answer, use, cores, between, memory } = given;
  const turnsPerSecond = ((conversations * turns) / day) * peak;
  const turn = costOfTurn(given);
  const busyCores = turnsPerSecond * turn.coreSeconds;
  const stored = turnsPerSecond * turn.stored;
  return {
    turnsPerSecond,
    tokensRead: turnsPerSecond * message,
    tokensWritten: turnsPerSecond * answer,
    cores: busyCores / use,
    machines: Math.ceil(busyCores / use / cores),
    processes: Math.ceil((turnsPerSecond * turn.threadSeconds) / use),
    // What is let go is what was not used for longest: a state is there for as long as others take to fill the memory.
    serverMemory: stored * between,
    redisTraffic: turnsPerSecond * (turn.fetched + turn.stored),
    redisBusy: turnsPerSecond * turn.redisSeconds,
    redisHour: stored * 3600,
    redisDay: (stored / peak) * day,
    redisServers: Math.ceil(Math.max(turnsPerSecond * turn.redisSeconds, turnsPerSecond * turn.networkSeconds) / use),
    redisForAnHour: Math.ceil((stored * 3600) / (memory * 1e9)),
    proxyCores: turnsPerSecond * turn.proxySeconds,
  };
}

/** At how many conversations a day each part is full, were it alone. */
export function saturation(given) {
  const { turns, peak, use, cores, memory, between } = given;
  const turn = costOfTurn(given);
  const aDay = (turnsPerSecond) => (turnsPerSecond / peak / turns) * day;
  return [
    ["one core", aDay(use / turn.coreSeconds)],
    [`one machine of ${cores} cores`, aDay((use * cores) / turn.coreSeconds)],
    ["the main thread of one server", aDay(use / turn.threadSeconds)],
    [`one Redis: states for ${between} s, in ${memory} GB`, aDay((memory * 1e9) / turn.stored / between)],
    [`one Redis: states for an hour, in ${memory} GB`, aDay((memory * 1e9) / turn.stored / 3600)],
    ["one Redis: its thread", aDay(use / turn.redisSeconds)],
    [`one Redis: its network of ${given.network} Gbit/s`, aDay(use / turn.networkSeconds)],
    ["one core of nginx", aDay(use / turn.proxySeconds)],
  ];
}

/** A number with as many digits as say something. */
const shown = (value) =>
  value === 0
    ? "0"
    : value >= 100
      ? Number(value.toPrecision(3)).toLocaleString("en-US")
      : String(Number(value.toPrecision(2)));
const bytes = (value) => {
  const [unit, size] = [
    ["TB", 1e12],
    ["GB", 1e9],
    ["MB", 1e6],
  ].find(([, one]) => value >= one) ?? ["kB", 1e3];
  return `${shown(value / size)} ${unit}`;
};

/** A table of Markdown, with columns of one width. */
export function table(rows) {
  const widths = rows[0].map((_, i) => Math.max(3, ...rows.map((row) => String(row[i]).length)));
  const line = (row) => `| ${row.map((cell, i) => String(cell).padEnd(widths[i])).join(" | ")} |`;
  const [head, ...others] = rows;
  return [line(head), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...others.map(line)].join("\n");
}

const loads = [1e3, 1e5, 1e7];

/** The tables of docs/scale.md. */
export function report(given) {
  const turn = costOfTurn(given);
  const all = loads.map((conversations) => needs(conversations, given));
  const row = (what, of) => [what, ...all.map(of)];
  const used = Object.entries(assumptions).map(([name, [, unit, what]]) => [
    `\`--${name}\``,
    `${given[name]} ${unit}`.trim(),
    what,
  ]);
  return [
    table([["assumption", "value", "what it is"], ...used]),
    table([
      ["a turn takes", ""],
      ["of a core", `${shown(turn.coreSeconds)} s`],
      ["of a core, to read all of the last turn's prompt, were its state gone", `${shown(turn.againSeconds)} s more`],
      ["of a server's main thread", `${shown(turn.threadSeconds * 1000)} ms`],
      ["states from Redis", bytes(turn.fetched)],
      ["states to Redis", bytes(turn.stored)],
      ["of Redis' thread", `${shown(turn.redisSeconds * 1000)} ms`],
    ]),
    table([
      ["conversations a day", ...loads.map(shown)],
      row("turns a second, at the busiest", (one) => shown(one.turnsPerSecond)),
      row("tokens a second, read and written", (one) => `${shown(one.tokensRead)}, ${shown(one.tokensWritten)}`),
      row(`cores of servers, ${given.use * 100} % busy`, (one) => shown(one.cores)),
      row(`machines of ${given.cores} cores`, (one) => shown(one.machines)),
      row("processes of servers, for their main threads", (one) => shown(one.processes)),
      row(`states of the last ${given.between} s`, (one) => bytes(one.serverMemory)),
      row("states of the last hour", (one) => bytes(one.redisHour)),
      row("states of a day", (one) => bytes(one.redisDay)),
      row("Redis, states each way a second", (one) => bytes(one.redisTraffic)),
      row("Redis, share of one's thread", (one) => `${shown(one.redisBusy * 100)} %`),
      row("Redis, how many for the traffic", (one) => shown(one.redisServers)),
      row(`Redis, how many for an hour in ${given.memory} GB`, (one) => shown(one.redisForAnHour)),
      row("cores of nginx", (one) => shown(one.proxyCores)),
    ]),
    table([["what is full", "at conversations a day"], ...saturation(given).map(([part, at]) => [part, shown(at)])]),
  ].join("\n\n");
}

/** The table of deploy/capacity.md: models of several sizes, whose speeds are taken to go with their weights. */
export function sheet(given) {
  const models = [
    ["0.1B", 12, 768],
    ["0.4B", 24, 1024],
    ["1.5B", 24, 2048],
    ["2.9B", 32, 2560],
    ["7.2B", 32, 4096],
    ["13.3B", 61, 4096],
  ];
  const rows = models.map(([name, layers, width]) => {
    const model = { ...given, layers, width };
    const slower = multipliedWeights(model) / multipliedWeights(given);
    const own = { ...model, read: given.read / slower, write: given.write / slower };
    const [, [, machine]] = saturation(own);
    const { stored, fetched } = costOfTurn(own);
    const weights = multipliedWeights(own) + width * given.vocabulary;
    return [
      `${name} (${layers}x${width})`,
      bytes(weights * (34 / 32)),
      bytes(stateBytes(own)),
      shown(Math.floor(2 ** 30 / stateBytes(own))),
      `${shown(own.read)}, ${shown(own.write)}`,
      shown(machine),
      bytes((machine * given.turns * given.peak * (stored + fetched)) / day),
      bytes(((machine * given.turns * given.peak * stored) / day) * 3600),
    ];
  });
  const head = [
    "model",
    "weights, Q8_0",
    "a state",
    "states a GiB",
    "tokens/s a core: read, written",
    `conversations a day on ${given.cores} cores`,
    "their Redis, a second",
    "their states of an hour",
  ];
  return table([head, ...rows]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const named = Object.entries(assumptions).map(([name]) => [name, { type: "string" }]);
  const { values } = parseArgs({
    options: { ...Object.fromEntries(named), sheet: { type: "boolean" }, help: { type: "boolean" } },
  });
  const { sheet: isSheet, help, ...given } = values;
  const wrong = Object.entries(given).find(([, text]) => !(Number(text) >= 0));
  if (wrong) throw new RangeError(`--${wrong[0]}: expected a number of 0 or more, found ${wrong[1]}`);
  const numbers = Object.fromEntries(Object.entries(given).map(([name, text]) => [name, Number(text)]));
  if (help) {
    for (const [name, [value, unit, what]] of Object.entries(assumptions))
      console.log(`--${name} ${value} ${unit}: ${what}`);
  } else console.log((isSheet ? sheet : report)({ ...defaults, ...numbers }));
}
