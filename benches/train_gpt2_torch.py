"""Training speed of gpt2: icecap against a ClipCap-style loop over Hugging Face's GPT-2 (pip install transformers), on made-up data.

    python benches/train_gpt2_torch.py [--threads 2] [--steps 6] [--model small|124M] [--rounds 2] [--device cuda --precision bf16] [--batch 40] [--compile]

Where there is no cargo, ICECAP_SPEED names the built tests of the library (`cargo test --release --lib --no-run`).

`124M`: GPT-2 small, 50,257 words, ClipCap's MLP from one vector to 10, batches of 40 captions. `small`: the sizes of
pipelines/flickr8k-gpt2.toml, 4 layers of 384 over a grid of 49, 2,540 words, batches of 100. Captions have Flickr8k's lengths. Both sides
train on batches of captions of like length, five an image or one, with dropout .1 everywhere, label smoothing, clipping and AdamW. The
loop is ClipCap's: one row a caption, padded to the batch's longest, logits of every place after the prefix. transformers runs its
default attention (sdpa) and the eager one; the faster counts. Both sides take turns; tokens are those to predict, padding not
counted. Where other programs share the processor, trust tokens per CPU second.
"""

import argparse
import math
import os
import re
import resource
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

D = 1280
MODELS = {
    "small": dict(config=dict(vocab_size=2540, n_positions=128, n_embd=384, n_layer=4, n_head=6), vectors=49, prefix=49, batch=100),
    "124M": dict(config=dict(), vectors=1, prefix=10, batch=40),
}


def length(i):
    """The i-th caption's words: a spread like Flickr8k's, mean 10.8. The same formula stands in src/trainer/speed.rs."""
    u = ((i * 7919) % 1000 + 0.5) / 1000
    return min(max(round(10.8 + 2.1 * math.log(u / (1 - u))), 3), 30)


class ClipCap(nn.Module):
    def __init__(self, vectors, prefix, config, attention):
        super().__init__()
        self.gpt = GPT2LMHeadModel(GPT2Config(**config, attn_implementation=attention))
        self.prefix, width = prefix, self.gpt.config.n_embd
        inner = width * prefix // 2
        self.map = nn.Linear(D, width) if vectors > 1 else nn.Sequential(nn.Linear(D, inner), nn.Tanh(), nn.Linear(inner, width * prefix))

    def forward(self, features, tokens, mask):
        words = self.gpt.transformer.wte(tokens)
        image = self.map(features).view(len(tokens), self.prefix, -1)
        mask = torch.cat([torch.ones(len(tokens), self.prefix, device=mask.device), mask], 1)
        logits = self.gpt(inputs_embeds=torch.cat([image, words], 1), attention_mask=mask).logits
        logits = logits[:, self.prefix - 1 : -1]
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens.masked_fill(mask[:, self.prefix :] == 0, -100).flatten(), label_smoothing=0.1)


def batches(steps, model, together):
    """Batches as icecap's: images' captions together, then sorted by length within a pool."""
    batch, vocab = model["batch"], model["config"].get("vocab_size", 50257)
    groups = [[length(i) for i in range(start, start + together)] for start in range(0, 32 * batch, together)]
    groups.sort(key=max)
    flat = [n for group in groups for n in group]
    picked = [flat[start : start + batch] for start in range(0, len(flat), batch)]
    picked = [picked[at * 7 % len(picked)] for at in range(steps)]
    for words in picked:
        longest = max(words) + 1
        tokens, mask = torch.zeros(batch, longest, dtype=torch.long), torch.zeros(batch, longest)
        for row, n in enumerate(words):
            tokens[row, : n + 1] = torch.randint(4, vocab, (n + 1,))
            mask[row, : n + 1] = 1
        yield torch.rand(batch, model["vectors"], D), tokens, mask


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def loss_of(model, features, given, mask, args):
    with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.precision == "bf16"):
        return model(features, given, mask)


def train(name, together, args, attention, compiled=False):
    spec, steps, device = MODELS[name], args.steps, args.device
    model = ClipCap(spec["vectors"], spec["prefix"], spec["config"], attention).to(device)
    run = torch.compile(model) if compiled else model
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    data = [[part.to(device) for part in batch] for batch in batches(steps, spec, together)]
    counts = [int(mask.sum()) for _, _, mask in data]
    # Each shape is compiled, or has its kernels chosen and loaded, before the clock starts.
    for features, given, mask in data if compiled or device != "cpu" else []:
        loss_of(run, features, given, mask, args).backward()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    tokens = 0
    for step, (features, given, mask) in enumerate(data):
        if step == 2:
            wait()
            wall, used, tokens = time.perf_counter(), cpu(), 0
        optimizer.zero_grad()
        loss_of(run, features, given, mask, args).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        tokens += counts[step]
    wait()
    wall, used = time.perf_counter() - wall, cpu() - used
    label = f"gpt2 {name}, {together} an image, {attention}{', compiled' if compiled else ''}"
    print(f"torch  {label:28} {tokens / wall:8.0f} tokens/s  {tokens / used:8.0f} tokens per CPU second", flush=True)


def ceiling(device):
    """bf16 operations a second of a large product on this GPU."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    for at in range(13):
        if at == 3:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        a @ b
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - begun)


def operations(name):
    """Operations of a token to predict, one caption an image: 6 a weight and row, the image's rows shared out over the caption's tokens.

    The weights of the blocks meet every row, the head's those with a target. Attention's own products are not counted."""
    spec = MODELS[name]
    config = GPT2Config(**spec["config"])
    words = [length(i) + 1 for i in range(1000)]
    rows = (sum(words) + len(words) * spec["prefix"]) / sum(words)
    return 6 * (12 * config.n_layer * config.n_embd**2 * rows + config.vocab_size * config.n_embd)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", choices=list(MODELS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, help="captions a batch")
    parser.add_argument("--compile", action="store_true", help="also the loop under torch.compile")
    args = parser.parse_args()
    for model in MODELS.values() if args.batch else []:
        model["batch"] = args.batch
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    threads = str(args.threads)
    settings = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "ICECAP_STEPS": str(args.steps)}
    settings |= {"ICECAP_DEVICE": args.device, "ICECAP_PRECISION": args.precision}
    if args.batch:
        settings["ICECAP_BATCH"] = str(args.batch)
    built = os.environ.get("ICECAP_SPEED")
    command = [built, "trainer::speed::gpt2"] if built else ["cargo", "test", "--release", "--quiet", "-p", "icecap", "--lib", "trainer::speed::gpt2", "--"]
    command += ["--ignored", "--nocapture"]
    for name in [args.model] if args.model else list(MODELS):
        for _ in range(args.rounds):
            for together in (5, 1):
                for attention in ("sdpa", "eager"):
                    train(name, together, args, attention)
                if args.compile:
                    train(name, together, args, "sdpa", compiled=True)
            done = subprocess.run(command, check=True, env={**os.environ, **settings, "ICECAP_MODEL": name}, stdout=subprocess.PIPE, text=True)
            found = [re.search(r"icecap .* ([0-9.]+) tokens/s.*", line) for line in done.stdout.splitlines()]
            found = [match for match in found if match]
            if not found:
                raise SystemExit(f"{' '.join(command)} measured nothing:\n{done.stdout}")
            print("\n".join(match.group(0) for match in found), flush=True)
            if args.device != "cpu" and args.precision == "bf16":
                speed = float(found[-1].group(1))
                most = ceiling(args.device)
                share = 100 * speed * operations(name) / most
                print(f"       {share:.1f}% of the {most / 1e12:.0f} TFLOP/s of a bf16 product of 8192 x 8192 here (one an image)", flush=True)


if __name__ == "__main__":
    main()
