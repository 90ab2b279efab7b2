// The architectures that can be compared.

import type { Architecture } from "./architecture.js";
import { linearAttention } from "./linear-attention.js";
import { rwkv4 } from "./rwkv4.js";
import { transformer } from "./transformer.js";

export const architectures: readonly Architecture[] = [transformer, linearAttention, rwkv4];
