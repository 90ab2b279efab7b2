// Formats of strings, as regular expressions for texts that every validator takes to be of the format: of some formats
// they are not all texts (no 29th of February, no address literals).

const hour = "(?:[01][0-9]|2[0-3])";
const date =
  "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
const time = `${hour}:[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-]${hour}:[0-5][0-9])`;
const count = "[0-9]{1,6}";
const days = `(?:${count}Y(?:${count}M(?:${count}D)?)?|${count}M(?:${count}D)?|${count}D)`;
const hours = `T(?:${count}H(?:${count}M(?:${count}S)?)?|${count}M(?:${count}S)?|${count}S)`;
// At most 62 characters a label and 251 in all, where DNS allows 63 and 253. Written so that each text can be read in one
// way, which makes masks cheap (counted-tokens.ts).
const label = "[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}";
const hostname = `${label}(?:\\.${label}){0,3}`;
const byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const group = "[0-9a-fA-F]{1,4}";
/** Eight groups, or fewer around a double colon that stands for at least one. */
const ipv6 = [
  `(?:${group}:){7}${group}`,
  ...[1, 2, 3, 4, 5, 6, 7].map(
    (before) => `(?:${group}:){${before}}${before === 7 ? ":" : `(?::${group}){1,${7 - before}}`}`,
  ),
  `:(?::${group}){1,7}`,
  ...[1, 2, 3, 4, 5, 6].map((before) => `(?:${group}:){${before}}:`),
  "::",
].join("|");
const path = "[A-Za-z0-9._~!$&'()*+,;=:@-]";

/** By name, the pattern of a format. */
export const formatPatterns: Readonly<Record<string, string>> = {
  date: `^${date}$`,
  time: `^${time}$`,
  "date-time": `^${date}T${time}$`,
  duration: `^P(?:${days}(?:${hours})?|${hours}|${count}W)$`,
  email: `^[A-Za-z0-9_+]{1,31}(?:[.-][A-Za-z0-9_+]{1,31})?@${label}(?:\\.${label}){1,2}$`,
  hostname: `^${hostname}$`,
  ipv4: `^${byte}(?:\\.${byte}){3}$`,
  ipv6: `^(?:${ipv6})$`,
  uri: `^[a-z][a-z0-9+.-]{1,15}://${hostname}(?::[0-9]{1,4})?(?:/${path}*)*(?:\\?(?:${path}|[/?])*)?(?:#(?:${path}|[/?])*)?$`,
  uuid: "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
};
