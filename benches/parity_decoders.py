"""Compares icecap's lstm and attention-lstm (both variants) with a plain PyTorch reimplementation.

    python benches/parity_decoders.py              # runs the dump test with cargo, then compares
    python benches/parity_decoders.py DIR          # compares what the dump test wrote to DIR before

The reimplementation is the textbook one: nn.LSTM / nn.LSTMCell modules fed one caption at a time, tanh attention, autograd.
Compared: logits of fed tokens, the training loss, every parameter's gradient, greedy captions and beam captions' scores.
"""

import json
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Mapping(nn.Module):
    def __init__(self, weights, activation):
        super().__init__()
        self.weights, self.activation = weights, activation

    def forward(self, columns, present):
        mapped = []
        for name, vectors in columns.items():
            w = self.weights
            y = F.linear(vectors, w[f"mapping.{name}.weight"], w[f"mapping.{name}.bias"])
            y = {"relu": torch.relu, "tanh": torch.tanh, "none": lambda x: x}[self.activation](y)
            mapped.append(y + w[f"mapping.{name}.type"])
        return torch.cat(mapped, 1) * present.unsqueeze(-1)


class Lstm(nn.Module):
    def __init__(self, spec, weights, vocab):
        super().__init__()
        self.w = weights
        self.mapping = Mapping(weights, spec["activation"])
        self.lstm = nn.LSTM(spec["embedding"], spec["hidden"], spec["layers"], batch_first=True)

    def start(self, columns, present):
        image = self.mapping(columns, present).sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return self.run(image.unsqueeze(1), None)[1]

    def run(self, x, state):
        names = {n: self.w["lstm." + n] for n, _ in self.lstm.named_parameters()}
        return torch.func.functional_call(self.lstm, names, (x,) if state is None else (x, state))

    def step(self, state, token):
        out, state = self.run(self.w["embedding.weight"][token].unsqueeze(1), state)
        return F.linear(out[:, 0], self.w["output.weight"], self.w["output.bias"]), state, None


class Attention(nn.Module):
    def __init__(self, spec, weights, vocab):
        super().__init__()
        self.w = weights
        self.mapping = Mapping(weights, spec["activation"])
        self.cell = nn.LSTMCell(spec["embedding"] + spec["width"], spec["hidden"])

    def lin(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def start(self, columns, present):
        a = self.mapping(columns, present)
        mean = a.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return a, present, self.lin("init_h", mean), self.lin("init_c", mean)

    def step(self, state, token):
        a, present, h, c = state
        e = torch.tanh(self.lin("attention.key", a) + self.lin("attention.query", h).unsqueeze(1))
        e = self.lin("attention.score", e).squeeze(-1).masked_fill(present == 0, -1e9)
        alpha = e.softmax(-1)
        z = torch.sigmoid(self.lin("gate", h)) * (alpha.unsqueeze(-1) * a).sum(1)
        x = torch.cat([self.w["embedding.weight"][token], z], 1)
        names = {n: self.w["cell." + n] for n, _ in self.cell.named_parameters()}
        h, c = torch.func.functional_call(self.cell, names, (x, (h, c)))
        return self.lin("output", h), (a, present, h, c), alpha


class UpDown(Attention):
    def __init__(self, spec, weights, vocab):
        super().__init__(spec, weights, vocab)
        width, words, hidden = spec["width"], spec["embedding"], spec["hidden"]
        self.top_down = nn.LSTMCell(hidden + width + words, hidden)
        self.language = nn.LSTMCell(width + hidden, hidden)

    def start(self, columns, present):
        v = self.mapping(columns, present)
        mean = v.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        zeros = v.new_zeros(v.shape[0], self.top_down.hidden_size)
        return v, present, mean, (zeros, zeros), (zeros, zeros)

    def call(self, cell, name, x, state):
        names = {n: self.w[name + "." + n] for n, _ in cell.named_parameters()}
        return torch.func.functional_call(cell, names, (x, state))

    def step(self, state, token):
        v, present, mean, first, second = state
        x = torch.cat([second[0], mean, self.w["embedding.weight"][token]], 1)
        first = self.call(self.top_down, "top_down", x, first)
        e = torch.tanh(self.lin("attention.key", v) + self.lin("attention.query", first[0]).unsqueeze(1))
        e = self.lin("attention.score", e).squeeze(-1).masked_fill(present == 0, -1e9)
        alpha = e.softmax(-1)
        x = torch.cat([(alpha.unsqueeze(-1) * v).sum(1), first[0]], 1)
        second = self.call(self.language, "language", x, second)
        return self.lin("output", second[0]), (v, present, mean, first, second), alpha


def one_image(columns, present, i):
    return {n: v[i : i + 1] for n, v in columns.items()}, present[i : i + 1]


def loss_of(model, columns, present, facts):
    bos, eos = facts["special"][:2]
    logits, targets, rest, count = [], [], 0.0, 0.0
    for image, tokens in facts["captions"]:
        c, p = one_image(columns, present, image)
        state, total = model.start(c, p), 0.0
        for given, target in zip([bos] + tokens, tokens + [eos]):
            out, state, alpha = model.step(state, torch.tensor([given]))
            logits.append(out[0])
            targets.append(target)
            total = total + alpha if alpha is not None else 0.0
        due = max(1.0, (len(tokens) + 1) / max(float(p.sum()), 1.0))
        rest = rest + (((due - total) ** 2) * p).sum()
        count = count + p.sum()
    loss = F.cross_entropy(torch.stack(logits), torch.tensor(targets), label_smoothing=facts["label_smoothing"])
    return loss + facts["spec"].get("doubly_stochastic", 0.0) * rest / count


def forbidden(facts, position):
    bos, eos, unk, pad = facts["special"]
    return [bos, unk, pad] + ([eos] if position < 1 else [])


def greedy(model, columns, present, facts):
    said = []
    for i in range(present.shape[0]):
        state, token, tokens = model.start(*one_image(columns, present, i)), facts["special"][0], []
        while True:
            out, state, _ = model.step(state, torch.tensor([token]))
            out[0, forbidden(facts, len(tokens))] = -float("inf")
            token = int(out[0].argmax())
            if token == facts["special"][1] or len(tokens) == facts["max_length"]:
                break
            tokens.append(token)
        said.append(tokens)
    return said


def log_prob(model, columns, present, tokens, facts):
    """Of a caption with its end, under the same masks as the search's."""
    state, total = model.start(columns, present), 0.0
    for given, target in zip([facts["special"][0]] + tokens, tokens + [facts["special"][1]]):
        out, state, _ = model.step(state, torch.tensor([given]))
        total += out.log_softmax(-1)[0, target].item()
    return total


def beam(model, columns, present, facts):
    """A textbook beam, one image at a time; returns the best normalized score."""
    eos, width, power = facts["special"][1], facts["beam_width"], facts["length_penalty"]
    best = []
    for i in range(present.shape[0]):
        living, ended = [([], 0.0, model.start(*one_image(columns, present, i)), facts["special"][0])], []
        for position in range(facts["max_length"] + 1):
            grown = []
            for tokens, score, state, token in living:
                out, after, _ = model.step(state, torch.tensor([token]))
                out = out.log_softmax(-1)[0]
                out[forbidden(facts, position)] = -float("inf")
                choices = [eos] if position == facts["max_length"] else out.topk(2 * width).indices.tolist()
                grown += [(tokens, score + out[t].item(), after, t) for t in choices if out[t].item() > -1e30]
            grown.sort(key=lambda g: -g[1])
            living = []
            for rank, (tokens, score, state, t) in enumerate(grown[: 2 * width]):
                if len(living) == width:
                    break
                if t == eos:
                    if rank < width:
                        ended.append((score / (len(tokens) + 1) ** power, tokens))
                else:
                    living.append((tokens + [t], score, state, t))
            ended = sorted(ended, key=lambda e: -e[0])[:width]
            if not living or (len(ended) == width and ended[-1][0] >= living[0][1] / (len(living[0][0]) + 1) ** power):
                break
        best.append(ended[0])
    return best


def compare(folder):
    facts = json.load(open(os.path.join(folder, "facts.json")))
    weights = {n: t.requires_grad_() for n, t in load_file(os.path.join(folder, "model.safetensors")).items()}
    inputs = load_file(os.path.join(folder, "inputs.safetensors"))
    columns = {n: inputs[n] for n in ("grid", "pooled")}
    present = torch.cat([inputs["grid.present"], torch.ones(inputs["pooled"].shape[:2])], 1)
    vocab = weights["embedding.weight"].shape[0]
    kind = facts["spec"].get("variant", facts["spec"]["kind"])
    model = {"lstm": Lstm, "show-attend-tell": Attention, "up-down": UpDown}[kind](facts["spec"], weights, vocab)
    worst = {}
    with torch.no_grad():
        state = model.start(columns, present)
        for t, token in enumerate(facts["fed"]):
            out, state, _ = model.step(state, torch.full((present.shape[0],), token))
            worst["logits"] = max(worst.get("logits", 0), (out - inputs["logits"][t]).abs().max().item())
    loss = loss_of(model, columns, present, facts)
    worst["loss"] = abs(loss.item() - facts["loss"])
    loss.backward()
    gradients = load_file(os.path.join(folder, "gradients.safetensors"))
    assert set(gradients) == set(weights), set(gradients) ^ set(weights)
    apart = {n: (gradients[n] - weights[n].grad).abs().max().item() for n in weights}
    worst["gradient"] = max(apart.values())
    with torch.no_grad():
        same = [a == b["tokens"] for a, b in zip(greedy(model, columns, present, facts), facts["greedy"])]
        best = beam(model, columns, present, facts)
        equal = [a[1] == b["tokens"] for a, b in zip(best, facts["beam"])]
        score = lambda b: b["log_prob"] / (len(b["tokens"]) + 1) ** facts["length_penalty"]
        worst["beam score"] = max(abs(a[0] - score(b)) for a, b in zip(best, facts["beam"]))
    print(f"{kind:16}", {k: f"{v:.1e}" for k, v in worst.items()}, end=" ")
    print(f"greedy {sum(same)}/{len(same)} equal, beam {sum(equal)}/{len(equal)} equal")
    return all(v < 1e-5 for v in worst.values()) and all(same) and all(equal)


def main():
    torch.manual_seed(0)
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    if len(sys.argv) == 1:
        command = ["cargo", "test", "--quiet", "--lib", "decoder::parity", "--", "--ignored"]
        subprocess.run(command, check=True, env={**os.environ, "ICECAP_PARITY": folder}, stdout=subprocess.DEVNULL)
    kinds = ["lstm", "attention-lstm", "up-down"]
    sys.exit(0 if all([compare(os.path.join(folder, kind)) for kind in kinds]) else 1)


if __name__ == "__main__":
    main()
