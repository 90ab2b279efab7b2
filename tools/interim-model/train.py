"""Trains the interim embedded model: a byte-level RWKV-4 small enough to ship inside the package.

Run with any Python that has PyTorch; needs nothing else:

    python3 tools/interim-model/train.py --data fairy-tales.txt --out interim.pth --minutes 75

The equations are those of docs/model.md. Initialisation and optimizer settings follow RWKV-LM v4
(https://github.com/BlinkDL/RWKV-LM, RWKV-v4neo/src/model.py). The learning rate follows a cosine over wall-clock time, so
the run always ends on schedule whatever the machine. Written checkpoints hold bfloat16 values.
"""

import argparse
import math
import os
import time

import torch
from torch import nn
from torch.nn import functional as F


def matrix(rows, columns, gain):
    weight = torch.empty(rows, columns)
    if gain == 0:
        return nn.Parameter(weight.zero_())
    nn.init.orthogonal_(weight, gain=gain * math.sqrt(max(1.0, rows / columns)))
    return nn.Parameter(weight)


class TimeMixing(nn.Module):
    def __init__(self, width, layer, layers):
        super().__init__()
        depth = layer / max(1, layers - 1)
        shallow = 1 - layer / layers
        channel = torch.arange(width)
        x = channel / width
        self.time_decay = nn.Parameter(-5 + 8 * (channel / (width - 1)) ** (0.7 + 1.3 * depth))
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
        self.time_mix_k = nn.Parameter((x**shallow).view(1, 1, -1))
        self.time_mix_v = nn.Parameter((x**shallow + 0.3 * depth).view(1, 1, -1))
        self.time_mix_r = nn.Parameter((x ** (0.5 * shallow)).view(1, 1, -1))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.key.weight = matrix(width, width, 0)
        self.value.weight = matrix(width, width, 1)
        self.receptance.weight = matrix(width, width, 0)
        self.output.weight = matrix(width, width, 0)

    def forward(self, x):
        previous = F.pad(x, (0, 0, 1, -1))
        k = self.key(torch.lerp(previous, x, self.time_mix_k))
        v = self.value(torch.lerp(previous, x, self.time_mix_v))
        r = torch.sigmoid(self.receptance(torch.lerp(previous, x, self.time_mix_r)))
        # Training windows are short, so wkv is a batched matrix product: weight of token s at token t, per channel, is
        # exp(w (t-1-s)) for s < t and exp(u) for s = t. Keys are bounded to keep exp inside float32.
        length = x.shape[1]
        k = k.clamp(-30, 30)
        distance = torch.arange(length).view(-1, 1) - 1 - torch.arange(length).view(1, -1)
        w = -torch.exp(self.time_decay).view(-1, 1, 1)
        decay = torch.exp(w * distance.clamp(min=0)) * (distance >= 0)
        decay = decay + torch.diag_embed(torch.exp(self.time_first).view(-1, 1).expand(-1, length))
        e = torch.exp(k)
        stacked = torch.cat([e * v, e]).permute(2, 1, 0)  # [channel, time, 2 * batch]
        numerator, denominator = torch.bmm(decay, stacked).permute(2, 1, 0).chunk(2)
        return self.output(r * numerator / denominator)


class ChannelMixing(nn.Module):
    def __init__(self, width, hidden, layer, layers):
        super().__init__()
        shallow = 1 - layer / layers
        x = torch.arange(width) / width
        self.time_mix_k = nn.Parameter((x**shallow).view(1, 1, -1))
        self.time_mix_r = nn.Parameter((x**shallow).view(1, 1, -1))
        self.key = nn.Linear(width, hidden, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(hidden, width, bias=False)
        self.key.weight = matrix(hidden, width, 1)
        self.receptance.weight = matrix(width, width, 0)
        self.value.weight = matrix(width, hidden, 0)

    def forward(self, x):
        previous = F.pad(x, (0, 0, 1, -1))
        k = torch.square(torch.relu(self.key(torch.lerp(previous, x, self.time_mix_k))))
        r = torch.sigmoid(self.receptance(torch.lerp(previous, x, self.time_mix_r)))
        return r * self.value(k)


class Block(nn.Module):
    def __init__(self, width, hidden, layer, layers):
        super().__init__()
        if layer == 0:
            self.ln0 = nn.LayerNorm(width)
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.att = TimeMixing(width, layer, layers)
        self.ffn = ChannelMixing(width, hidden, layer, layers)

    def forward(self, x):
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        x = x + self.att(self.ln1(x))
        return x + self.ffn(self.ln2(x))


class RWKV4(nn.Module):
    def __init__(self, layers, width, hidden, vocabulary):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, width)
        nn.init.uniform_(self.emb.weight, -1e-3, 1e-3)
        self.blocks = nn.ModuleList(Block(width, hidden, i, layers) for i in range(layers))
        self.ln_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = matrix(vocabulary, width, 0.5)

    def forward(self, tokens):
        x = self.emb(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_out(x))


def optimizer_groups(model, weight_decay):
    """time_decay learns twice and time_first three times as fast; only matrices decay."""
    groups = {}
    for name, parameter in model.named_parameters():
        factor = 2 if name.endswith("time_decay") else 3 if name.endswith("time_first") else 1
        decay = weight_decay if name.endswith(".weight") and parameter.dim() == 2 else 0
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": parameters, "factor": factor, "weight_decay": decay, "lr": 0.0}
        for (factor, decay), parameters in groups.items()
    ]


def batch_of(data, batch, length, generator):
    starts = torch.randint(0, len(data) - length - 1, (batch,), generator=generator)
    windows = torch.stack([data[s : s + length + 1] for s in starts]).long()
    return windows[:, :-1], windows[:, 1:]


def loss_of(logits, targets):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def save(model, path):
    state = {name: tensor.detach().to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    torch.save(state, path + ".part")
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--hidden", type=int, default=704)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(1)
    data = torch.frombuffer(bytearray(open(options.data, "rb").read()), dtype=torch.uint8)
    held_out = len(data) // 100
    train, validation = data[:-held_out], data[-held_out:]
    model = RWKV4(options.layers, options.width, options.hidden, 256)
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    optimizer = torch.optim.AdamW(optimizer_groups(model, 0.01), betas=(0.9, 0.99), eps=1e-8)

    started = time.time()
    step = 0
    running = None
    while True:
        progress = (time.time() - started) / (60 * options.minutes)
        if progress >= 1:
            break
        rate = options.lr * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))) * min(1, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        tokens, targets = batch_of(train, options.batch, options.context, generator)
        loss = loss_of(model(tokens), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            seconds = time.time() - started
            rate_tokens = step * options.batch * options.context / seconds
            print(f"{step} {seconds:.0f}s {running / math.log(2):.3f} bits/byte {rate_tokens:.0f} bytes/s", flush=True)
        if step % 500 == 0:
            save(model, options.out)

    with torch.no_grad():
        fixed = torch.Generator().manual_seed(2)
        losses = []
        for _ in range(20):
            tokens, targets = batch_of(validation, options.batch, options.context, fixed)
            losses.append(loss_of(model(tokens), targets).item())
    print(f"validation {sum(losses) / len(losses) / math.log(2):.3f} bits/byte after {step} steps", flush=True)
    save(model, options.out)


if __name__ == "__main__":
    main()
