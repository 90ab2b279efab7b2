// The architectures that can be compared, in the order in which their ideas came.

import { aftConv, aftFull, aftLocal, aftSimple } from "./aft.js";
import type { Architecture } from "./architecture.js";
import { gru } from "./gru.js";
import { linearAttention } from "./linear-attention.js";
import { rnn } from "./rnn.js";
import type { RwkvArchitecture } from "./rwkv.js";
import { rwkv4 } from "./rwkv4.js";
import { rwkv6 } from "./rwkv6.js";
import { rwkv7 } from "./rwkv7.js";
import { transformer } from "./transformer.js";

/** The versions of RWKV among them: 5 is 6 with decays and token shift that do not depend on the token. */
export const rwkvArchitectures: readonly RwkvArchitecture[] = [rwkv4, rwkv6, rwkv7];

export const architectures: readonly Architecture[] = [
  rnn,
  gru,
  transformer,
  linearAttention,
  aftFull,
  aftSimple,
  aftLocal,
  aftConv,
  ...rwkvArchitectures,
];
