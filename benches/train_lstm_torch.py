"""Training speed of lstm and attention-lstm: icecap against the same models in PyTorch eager, on made-up data.

    python benches/train_lstm_torch.py [--threads 2] [--steps 12] [--only torch|icecap] [--device cuda]

Where there is no cargo, ICECAP_SPEED names the built tests of the library (`cargo test --release --lib --no-run`).

Both sides train on batches of 100 captions (Flickr8k's lengths) of 49 x 1280 features already in memory, with 512-wide
decoders, a vocabulary of 2,540, dropout .5, label smoothing .1, clipping and AdamW. The PyTorch side is what people write:
one image a caption, captions padded (nn.LSTM: the faster of padded and packed) or sorted by length with a shrinking batch
(attention), a loop of nn.LSTMCell, logits a step at a time. Tokens are those to predict, padding not counted. Where other
programs share the processor, trust tokens per CPU second.
"""

import argparse
import math
import os
import resource
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

VOCAB, WIDTH, K, D, BATCH = 2540, 512, 49, 1280, 100


def length(i):
    """The i-th caption's words: a spread like Flickr8k's, mean 10.8. The same formula stands in src/trainer/speed.rs."""
    u = ((i * 7919) % 1000 + 0.5) / 1000
    return min(max(round(10.8 + 2.1 * math.log(u / (1 - u))), 3), 30)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(D, WIDTH)
        self.emb = nn.Embedding(VOCAB, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.score = nn.Linear(WIDTH, 1, bias=False)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.h, self.c = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.cell = nn.LSTMCell(2 * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, VOCAB)
        self.drop = nn.Dropout(0.5)

    def forward(self, features, tokens, lengths):
        a = self.drop(torch.relu(self.map(features)))
        keys, mean, words = self.key(a), a.mean(1), self.drop(self.emb(tokens[:, :-1]))
        h, c = self.h(mean), self.c(mean)
        logits, targets, total = [], [], torch.zeros(len(a), K, device=a.device)
        for t in range(int(lengths[0])):  # lengths stay on the host
            n = int((lengths > t).sum())
            e = self.score(torch.tanh(keys[:n] + self.query(h[:n]).unsqueeze(1))).squeeze(2)
            alpha = e.softmax(1)
            z = torch.sigmoid(self.gate(h[:n])) * (a[:n] * alpha.unsqueeze(2)).sum(1)
            h, c = self.cell(torch.cat([words[:n, t], z], 1), (h[:n], c[:n]))
            logits.append(self.out(self.drop(h)))
            targets.append(tokens[:n, t + 1])
            total = total + F.pad(alpha, (0, 0, 0, len(a) - n))
        loss = F.cross_entropy(torch.cat(logits), torch.cat(targets), label_smoothing=0.1)
        return loss + ((1 - total) ** 2).mean()


class Lstm(nn.Module):
    def __init__(self, packed):
        super().__init__()
        self.packed = packed
        self.map, self.emb = nn.Linear(D, WIDTH), nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.out, self.drop = nn.Linear(WIDTH, VOCAB), nn.Dropout(0.5)

    def forward(self, features, tokens, lengths):
        image = self.drop(self.map(features)).mean(1, keepdim=True)
        x = torch.cat([image, self.drop(self.emb(tokens[:, :-1]))], 1)
        targets = torch.cat([torch.zeros(len(x), 1, dtype=torch.long, device=x.device), tokens[:, 1:]], 1)
        if self.packed:
            hidden = self.lstm(pack_padded_sequence(x, lengths + 1, batch_first=True))[0].data
            targets = pack_padded_sequence(targets, lengths + 1, batch_first=True).data
        else:
            hidden, targets = self.lstm(x)[0].flatten(0, 1), targets.flatten()
        return F.cross_entropy(self.out(self.drop(hidden)), targets, ignore_index=0, label_smoothing=0.1)


def batches(steps):
    for step in range(steps):
        words = [length(i) for i in range(step * BATCH, (step + 1) * BATCH)]
        words.sort(reverse=True)
        tokens = torch.zeros(BATCH, words[0] + 2, dtype=torch.long)
        for row, n in enumerate(words):
            tokens[row, 0], tokens[row, n + 1] = 1, 2
            tokens[row, 1 : n + 1] = torch.randint(4, VOCAB, (n,))
        yield torch.rand(BATCH, K, D), tokens, torch.tensor(words) + 1


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def train(name, model, steps, device):
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    data = [(features.to(device), given.to(device), lengths) for features, given, lengths in batches(steps)]
    tokens, wait = 0, torch.cuda.synchronize if device != "cpu" else lambda: None
    for features, given, lengths in data if device != "cpu" else []:  # kernels are chosen and loaded for each shape before the clock starts
        model(features, given, lengths).backward()
    for step, (features, given, lengths) in enumerate(data):
        if step == 2:
            wait()
            wall, used, tokens = time.perf_counter(), cpu(), 0
        optimizer.zero_grad()
        model(features, given, lengths).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        tokens += int(lengths.sum())
    wait()
    wall, used = time.perf_counter() - wall, cpu() - used
    print(f"torch  {name:28} {tokens / wall:8.0f} tokens/s  {tokens / used:8.0f} tokens per CPU second", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", choices=["torch", "icecap"])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    if args.only != "icecap":
        train("attention-lstm (LSTMCell)", Attention(), args.steps, args.device)
        train("lstm (nn.LSTM, padded)", Lstm(packed=False), args.steps, args.device)
        train("lstm (nn.LSTM, packed)", Lstm(packed=True), args.steps, args.device)
    if args.only != "torch":
        threads = str(args.threads)
        settings = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "ICECAP_STEPS": str(args.steps), "ICECAP_DEVICE": args.device}
        built = os.environ.get("ICECAP_SPEED")
        command = [built, "trainer::speed::tokens"] if built else ["cargo", "test", "--release", "--quiet", "--lib", "trainer::speed::tokens", "--"]
        command += ["--ignored", "--nocapture"]
        subprocess.run(command, check=True, env={**os.environ, **settings})


if __name__ == "__main__":
    main()
