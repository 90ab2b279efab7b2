"""Speed of RWKV models in rwkv.cpp or in the official Python package: decoding and a prompt of 512 tokens, in tokens a second, as JSON
in the last line.

    python3 bench/peer_speed.py rwkv.cpp CLONE MODEL.bin          # CLONE with build/librwkv.so
    python3 bench/peer_speed.py quantize CLONE MODEL.bin Q.bin Q8_0
    python3 bench/peer_speed.py official PACKAGE MODEL.pth bf16   # PACKAGE: the folder that holds the package `rwkv`

bench/beside-peers.mjs runs it. Needs PyTorch (Debian: python3-torch and libopenblas0-pthread) for both, since rwkv.cpp's own Python
package imports it, and NumPy.
"""

import json
import os
import sys
import time

THREADS, PROMPT, DECODED = 2, 512, 64


def best_prompt_speed(*readings):
    """The better of several ways to read a prompt, each run once before it is timed."""
    speeds = []
    for read in readings:
        read()
        started = time.perf_counter()
        read()
        speeds.append(PROMPT / (time.perf_counter() - started))
    return max(speeds)


def decode_speed(step):
    for _ in range(4):
        step()
    started = time.perf_counter()
    for _ in range(DECODED):
        step()
    return DECODED / (time.perf_counter() - started)


def rwkv_cpp_library(clone):
    sys.path.insert(0, os.path.join(clone, "python"))
    from rwkv_cpp.rwkv_cpp_shared_library import RWKVSharedLibrary

    return RWKVSharedLibrary(os.path.join(clone, "build/librwkv.so"))


def quantize(clone, path, quantized, dtype):
    rwkv_cpp_library(clone).rwkv_quantize_model_file(path, quantized, dtype)


def rwkv_cpp(clone, path):
    import numpy

    library = rwkv_cpp_library(clone)
    context = library.rwkv_init_from_file(path, THREADS, 0)
    state = numpy.zeros(library.rwkv_get_state_buffer_element_count(context), numpy.float32)
    logits = numpy.zeros(library.rwkv_get_logits_buffer_element_count(context), numpy.float32)
    tokens = [1 + i % 1000 for i in range(PROMPT)]

    def read(chunk):
        library.rwkv_eval_sequence_in_chunks(context, tokens, chunk, None, state.ctypes.data, logits.ctypes.data)

    prompt = best_prompt_speed(lambda: read(128), lambda: read(512))
    decode = decode_speed(
        lambda: library.rwkv_eval(context, 100, state.ctypes.data, state.ctypes.data, logits.ctypes.data)
    )
    return {"decode": decode, "prompt": prompt}


def official(package, path, dtype):
    os.environ["RWKV_V7_ON"] = "1"
    os.environ["RWKV_JIT_ON"] = "1"
    os.environ["RWKV_CUDA_ON"] = "0"
    sys.path.insert(0, package)
    import torch

    torch.set_num_threads(THREADS)
    if torch.__version__ < "2":  # which has no `mmap`
        load = torch.load
        torch.load = lambda path, mmap=False, **options: load(path, **options)
    from rwkv.model import RWKV

    model = RWKV(model=path.removesuffix(".pth"), strategy=f"cpu {dtype}")
    tokens = [1 + i % 1000 for i in range(PROMPT)]
    prompt = best_prompt_speed(lambda: model.forward(tokens, None))
    state = model.forward(tokens[:8], None)[1]
    return {"decode": decode_speed(lambda: model.forward([100], state)), "prompt": prompt}


if __name__ == "__main__":
    _, peer, *arguments = sys.argv
    print(json.dumps({"rwkv.cpp": rwkv_cpp, "quantize": quantize, "official": official}[peer](*arguments)))
