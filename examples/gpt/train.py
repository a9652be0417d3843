"""A small GPT in plain torch, with nanoGPT's arguments and log lines. It knows nothing of optstudy.

python train.py --learning_rate=1e-3 --optimizer=adamw --max_iters=200 --out_dir=out
"""

import math
import sys
import sysconfig
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

out_dir = "out"
data = ""  # a text file; by default Python's own library
eval_interval, eval_iters, log_interval = 100, 10, 20
n_layer, n_head, n_embd, block_size, batch_size = 2, 2, 32, 64, 8
optimizer, learning_rate, weight_decay, beta1, beta2 = "adamw", 1e-3, 0.1, 0.9, 0.95
max_iters, warmup_iters, grad_clip = 200, 20, 1.0
seed = 1337
device = "cuda" if torch.cuda.is_available() else "cpu"

for argument in sys.argv[1:]:  # --key=value for any of the above
    key, equals, value = argument.removeprefix("--").partition("=")
    if not equals or type(globals().get(key)) not in (int, float, str):
        raise SystemExit(f"unknown argument: {argument}")
    globals()[key] = type(globals()[key])(value)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.qkv, self.proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))

    def forward(self, x):
        heads = (t.unflatten(2, (n_head, -1)).transpose(1, 2) for t in self.qkv(self.ln_1(x)).chunk(3, 2))
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, n_embd), nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*(Block() for _ in range(n_layer)))
        self.ln_f, self.lm_head = nn.LayerNorm(n_embd), nn.Linear(n_embd, 256, bias=False)

    def forward(self, x, targets):
        x = self.blocks(self.wte(x) + self.wpe.weight[: x.shape[1]])
        return F.cross_entropy(self.lm_head(self.ln_f(x)).flatten(0, 1), targets.flatten())


def get_batch(split):
    text = val if split == "val" else train
    starts = torch.randint(len(text) - block_size, (batch_size,)).tolist()
    x = torch.stack([text[i : i + block_size + 1] for i in starts]).long().to(device)
    return x[:, :-1], x[:, 1:]


@torch.no_grad()
def estimate_loss(split):
    return sum(model(*get_batch(split)).item() for _ in range(eval_iters)) / eval_iters


def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / warmup_iters
    progress = (it - warmup_iters) / max(1, max_iters - warmup_iters)
    return learning_rate * (0.55 + 0.45 * math.cos(math.pi * progress))


torch.manual_seed(seed)
library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
files = [Path(data)] if data else library[:100]
text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8)
train, val = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
model = GPT().to(device)
opt = {
    "adamw": lambda p: torch.optim.AdamW(p, betas=(beta1, beta2), weight_decay=weight_decay),
    "sgd": lambda p: torch.optim.SGD(p, momentum=beta1, weight_decay=weight_decay),
    "rmsprop": lambda p: torch.optim.RMSprop(p, alpha=beta2, weight_decay=weight_decay),
}[optimizer](model.parameters())
Path(out_dir).mkdir(parents=True, exist_ok=True)
began = time.time()
for iter_num in range(max_iters + 1):
    if iter_num % eval_interval == 0 or iter_num == max_iters:
        print(
            f"step {iter_num}: train loss {estimate_loss('train'):.4f}, val loss {estimate_loss('val'):.4f}"
        )
        torch.save({"model": model.state_dict(), "iter_num": iter_num}, Path(out_dir, "ckpt.pt"))
    for group in opt.param_groups:
        group["lr"] = get_lr(iter_num)
    loss = model(*get_batch("train"))
    opt.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    opt.step()
    if iter_num % log_interval == 0:
        elapsed = (time.time() - began) * 1000 / (iter_num + 1)
        print(f"iter {iter_num}: loss {loss.item():.4f}, time {elapsed:.2f}ms, mfu -100.00%", flush=True)
