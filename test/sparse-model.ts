// A checkpoint of the size of a large real model whose weights are all zeros: a header, and a hole that takes no room on disk.

import { open } from "node:fs/promises";
import { join } from "node:path";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import { byteLengthOf } from "#rwkv/checkpoints/checkpoint";
import { shape } from "#rwkv/cli/option-parsers";
import type { ServedFile } from "./file-server.js";
import { temporaryFolder } from "./fixture-files.js";

/** The beginning of a safetensors file with weights in bf16, up to their values, and the bytes of the whole file. */
function sparseHeader(size: string): { readonly header: Buffer; readonly bytes: number } {
  const tensors: Record<string, object> = {};
  let end = 0;
  for (const [name, tensor] of syntheticCheckpoint(shape(size), "bf16").tensors) {
    const begin = end;
    end += byteLengthOf(tensor);
    tensors[name] = { dtype: "BF16", shape: tensor.shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(tensors));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const header = Buffer.concat([length, text]);
  return { header, bytes: header.length + end };
}

/** The path of such a file, which is gone when the test ends. */
export async function sparseModel(size: string): Promise<string> {
  const path = join(await temporaryFolder(), "large.safetensors");
  const { header, bytes } = sparseHeader(size);
  const file = await open(path, "w");
  await file.write(header);
  await file.truncate(bytes);
  await file.close();
  return path;
}

/** Such a file on a web server with ranges, to pages of other origins too. */
export function sparseServed(size: string): ServedFile {
  const { header, bytes } = sparseHeader(size);
  const headers = { "access-control-allow-origin": "*", "access-control-expose-headers": "content-range" };
  return {
    bytes: header,
    answer: (request, response) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      const [begin, end] = first === undefined ? [0, bytes] : [Number(first), Math.min(bytes, Number(last) + 1)];
      response.writeHead(first === undefined ? 200 : 206, {
        ...headers,
        "content-length": end - begin,
        "accept-ranges": "bytes",
        ...(first !== undefined && { "content-range": `bytes ${begin}-${end - 1}/${bytes}` }),
      });
      const content = Buffer.alloc(request.method === "HEAD" || first === undefined ? 0 : end - begin);
      header.subarray(begin).copy(content);
      response.end(content);
      return true;
    },
  };
}
