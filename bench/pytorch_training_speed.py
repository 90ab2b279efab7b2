"""Training speed of the same RWKV-4 in PyTorch on this machine: what `rwkv bench --train` is compared with.

    python3 bench/pytorch_training_speed.py --layers 6 --width 256 --vocabulary 4096 --batch 16 --context 256

The wkv recurrence is a loop over time in Python, in its numerically safe form, as a reader of the paper would write it
(arXiv 2305.13048v2, appendix D). Matrix products are those of the BLAS that PyTorch was built with.
"""

import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.decay, self.first = nn.Parameter(torch.linspace(-5, 3, width)), nn.Parameter(torch.zeros(width))
        self.mixes = nn.Parameter(torch.rand(5, width))
        self.att = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))
        self.ffn_receptance = nn.Linear(width, width, bias=False)
        self.ffn_key = nn.Linear(width, 4 * width, bias=False)
        self.ffn_value = nn.Linear(4 * width, width, bias=False)

    def time_mixing(self, x):
        previous = F.pad(x, (0, 0, 1, -1))
        receptance, key, value, output = self.att
        r = torch.sigmoid(receptance(torch.lerp(previous, x, self.mixes[0])))
        k = key(torch.lerp(previous, x, self.mixes[1]))
        v = value(torch.lerp(previous, x, self.mixes[2]))
        w = -torch.exp(self.decay)
        numerator = denominator = torch.zeros_like(k[:, 0])
        exponent = torch.full_like(numerator, -1e30)
        rows = []
        for t in range(x.shape[1]):
            kt, vt = k[:, t], v[:, t]
            q = torch.maximum(exponent, self.first + kt)
            past, present = torch.exp(exponent - q), torch.exp(self.first + kt - q)
            rows.append((past * numerator + present * vt) / (past * denominator + present))
            q = torch.maximum(exponent + w, kt)
            past, present = torch.exp(exponent + w - q), torch.exp(kt - q)
            numerator = past * numerator + present * vt
            denominator = past * denominator + present
            exponent = q
        return output(r * torch.stack(rows, 1))

    def channel_mixing(self, x):
        previous = F.pad(x, (0, 0, 1, -1))
        k = torch.square(torch.relu(self.ffn_key(torch.lerp(previous, x, self.mixes[3]))))
        return torch.sigmoid(self.ffn_receptance(torch.lerp(previous, x, self.mixes[4]))) * self.ffn_value(k)

    def forward(self, x):
        x = x + self.time_mixing(self.ln1(x))
        return x + self.channel_mixing(self.ln2(x))


def main():
    parser = argparse.ArgumentParser()
    for name, default in [("layers", 6), ("width", 256), ("vocabulary", 4096), ("batch", 16), ("context", 256)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    model = nn.Sequential(
        nn.Embedding(options.vocabulary, options.width),
        nn.LayerNorm(options.width),
        *[Block(options.width) for _ in range(options.layers)],
        nn.LayerNorm(options.width),
        nn.Linear(options.width, options.vocabulary, bias=False),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99), eps=1e-8)
    times = []
    for _ in range(options.steps + 1):
        tokens = torch.randint(options.vocabulary, (options.batch, options.context + 1))
        started = time.perf_counter()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter() - started)
    seconds = sorted(times[1:])[len(times[1:]) // 2]
    print(f"PyTorch {torch.__version__}, {options.threads} threads: {options.batch * options.context / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
