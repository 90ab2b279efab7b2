"""Training speed of the same RWKV-4 or RWKV-7 in PyTorch on this machine: what `rwkv bench --train` is compared with.

    python3 bench/pytorch_training_speed.py --version 7 --layers 6 --width 256 --vocabulary 4096 --batch 16 --context 256

The recurrences are loops over time in Python, as a reader of the papers would write them: RWKV-4's in its numerically safe form
(arXiv 2305.13048v2, appendix D), RWKV-7's with its matrix of values by keys (arXiv 2503.14456, section 3). Matrix products are
those of the BLAS that PyTorch was built with.
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


class Rwkv7Block(nn.Module):
    """The first value is that of the layer's own, which costs as much as mixing it with that of the first layer."""

    def __init__(self, width, head_size=64):
        super().__init__()
        self.heads, self.head_size = width // head_size, head_size
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ln_x = nn.GroupNorm(self.heads, width, eps=64e-5)
        self.mixes = nn.Parameter(torch.rand(7, width))
        self.att = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))
        ranks = [max(32, 32 * round(factor * width**0.5 / 32)) for factor in (2.5, 2.5, 1.7, 5)]
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for rank in ranks)
        self.up = nn.ModuleList(nn.Linear(rank, width) for rank in ranks)
        self.k_k, self.k_a = nn.Parameter(torch.full((width,), 0.7)), nn.Parameter(torch.ones(width))
        self.r_k = nn.Parameter(torch.zeros(self.heads, head_size))
        self.ffn_key = nn.Linear(width, 4 * width, bias=False)
        self.ffn_value = nn.Linear(4 * width, width, bias=False)

    def time_mixing(self, x):
        batch, time_steps, width = x.shape
        shift = F.pad(x, (0, 0, 1, -1)) - x
        xr, xw, xk, xv, xa, xg = (x + shift * self.mixes[i] for i in range(6))
        receptance, key, value, output = self.att
        r, k, v = receptance(xr), key(xk), value(xv)
        w = torch.exp(-0.6065306597 * torch.sigmoid(self.up[0](torch.tanh(self.down[0](xw)))))
        a = torch.sigmoid(self.up[1](self.down[1](xa)))
        v = v + (v.detach() - v) * torch.sigmoid(self.up[2](self.down[2](xv)))
        g = self.up[3](torch.sigmoid(self.down[3](xg)))
        heads = lambda y: y.view(batch, time_steps, self.heads, self.head_size)
        removal = F.normalize(heads(k * self.k_k), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        rh, wh, kh, vh, ah = (heads(y) for y in (r, w, k, v, a))
        state = torch.zeros(batch, self.heads, self.head_size, self.head_size)
        rows = []
        for t in range(time_steps):
            removed = state @ removal[:, t, :, :, None]
            state = state * wh[:, t, :, None, :] - removed @ (removal[:, t] * ah[:, t])[:, :, None, :]
            state = state + vh[:, t, :, :, None] @ kh[:, t, :, None, :]
            rows.append((state @ rh[:, t, :, :, None]).flatten(1))
        out = self.ln_x(torch.stack(rows, 1).flatten(0, 1)).view_as(x)
        out = out + ((rh * kh * self.r_k).sum(-1, keepdim=True) * vh).flatten(2)
        return output(out * g)

    def channel_mixing(self, x):
        mixed = x + (F.pad(x, (0, 0, 1, -1)) - x) * self.mixes[6]
        return self.ffn_value(torch.square(torch.relu(self.ffn_key(mixed))))

    def forward(self, x):
        x = x + self.time_mixing(self.ln1(x))
        return x + self.channel_mixing(self.ln2(x))


def main():
    parser = argparse.ArgumentParser()
    for name, default in [("layers", 6), ("width", 256), ("vocabulary", 4096), ("batch", 16), ("context", 256)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--version", choices=["4", "7"], default="4")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    block = {"4": Block, "7": Rwkv7Block}[options.version]
    model = nn.Sequential(
        nn.Embedding(options.vocabulary, options.width),
        nn.LayerNorm(options.width),
        *[block(options.width) for _ in range(options.layers)],
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
    print(f"RWKV-{options.version}, PyTorch {torch.__version__}, {options.threads} threads: {options.batch * options.context / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
