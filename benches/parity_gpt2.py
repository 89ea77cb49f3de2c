"""Compares icecap's gpt2 with Hugging Face's transformers (pip install transformers; the numbers are of 4.57).

    python benches/parity_gpt2.py [--cases small,cross,mlp,124M] [--keep DIR]

For each case transformers writes a seeded random GPT-2 (`124M` has every tensor of GPT-2 small); icecap reads the folder, and notes logits,
loss and gradients, fifty steps of a real training and greedy captions (`src/trainer/parity_gpt2.rs`). This side maps the image by hand,
feeds it to GPT2LMHeadModel one padded batch at a time, differentiates by autograd, trains with torch's AdamW on the same batches, and
opens the checkpoint that icecap's training wrote, for its greedy captions.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, logging

SMALL = dict(vocab_size=61, n_positions=40, n_embd=32, n_layer=3, n_head=4)
GPT2 = dict(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12)
CASES = {
    "small": (SMALL, {"mapping": "linear"}, 50, 1e-3),
    "cross": (SMALL, {"mapping": "cross-attention", "token_types": False}, 50, 1e-3),
    "mlp": (SMALL, {"mapping": "mlp", "prefix_length": 4, "token_types": False}, 50, 1e-3),
    "124M": (GPT2, {"mapping": "linear"}, 3, 1e-5),
}
FED = [None, 5, 9, 20, 4, 33]


def prepare(folder, name):
    sizes, decoder, steps, rate = CASES[name]
    torch.manual_seed(1)
    cross = decoder["mapping"] == "cross-attention"
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.08 if name == "124M" else 0.3, add_cross_attention=cross))
    model.save_pretrained(folder / name / "hf")
    marks = {"bos": 1, "eos": 2, "pad": 0} if name != "124M" else {"bos": 50256, "eos": 50256, "pad": 50256}
    decoder |= {"kind": "gpt2", "pretrained": "hf", "dropout": 0.0, "attention_dropout": 0.0}
    case = {"decoder": decoder, "vocab": sizes["vocab_size"], "steps": steps, "learning_rate": rate} | marks
    (folder / name / "case.json").write_text(json.dumps(case))


class Captioner(torch.nn.Module):
    """The textbook way: GPT2LMHeadModel fed with embeddings, one row a caption."""

    def __init__(self, folder, case, weights):
        super().__init__()
        self.case, self.cross = case, case["decoder"]["mapping"] == "cross-attention"
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
        self.own = torch.nn.ParameterDict({n.replace(".", "|"): torch.nn.Parameter(t) for n, t in weights.items() if n.startswith("icecap.")})

    def w(self, name):
        return self.own[("icecap." + name).replace(".", "|")]

    def images(self, columns, present):
        """[N, K, W] with <img> first, and which are there."""
        width, mapped, there = self.w("img").shape[0], [], [torch.ones(len(present["grid"]), 1)]
        for name, vectors in columns.items():
            if self.case["decoder"]["mapping"] == "mlp":
                inner = torch.tanh(F.linear(vectors, self.w(f"mapping.{name}.0.weight"), self.w(f"mapping.{name}.0.bias")))
                out = F.linear(inner, self.w(f"mapping.{name}.2.weight"), self.w(f"mapping.{name}.2.bias"))
            else:
                out = F.linear(vectors, self.w(f"mapping.{name}.weight"), self.w(f"mapping.{name}.bias"))
            out = out.reshape(len(vectors), -1, width) + self.w(f"mapping.{name}.type")
            mapped.append(out)
            there.append(present[name][:, None].expand(-1, out.shape[1]))
        return torch.cat([self.w("img").expand(len(out), 1, -1)] + mapped, 1), torch.cat(there, 1)

    def begin(self, columns, present):
        images, there = self.images(columns, present)
        return images + self.w("img") if self.typed() else images, there

    def typed(self):
        return self.case["decoder"].get("token_types", True) and not self.cross

    def text(self, tokens):
        """<desc> and the words, [n, T + 1, W]."""
        words = torch.cat([self.w("desc").expand(len(tokens), 1, -1), self.model.transformer.wte(tokens)], 1)
        return words + self.w("desc") if self.case["decoder"].get("token_types", True) else words

    def forward(self, columns, present, tokens):
        images, there = self.begin(columns, present)
        text = self.text(tokens)
        if self.cross:
            return self.model(inputs_embeds=text, encoder_hidden_states=images, encoder_attention_mask=there).logits
        mask = torch.cat([there, torch.ones(text.shape[:2])], 1)
        places = torch.arange(mask.shape[1]).expand(len(mask), -1)
        out = self.model(inputs_embeds=torch.cat([images, text], 1), attention_mask=mask, position_ids=places)
        return out.logits[:, images.shape[1] :]

    def loss(self, columns, present, captions):
        """Mean over the tokens of [(row, tokens)], padded."""
        longest, eos = max(len(tokens) for _, tokens in captions), self.case["eos"]
        tokens = torch.zeros(len(captions), longest, dtype=torch.long)
        targets = torch.full((len(captions), longest + 1), -100)
        for at, (_, words) in enumerate(captions):
            tokens[at, : len(words)] = torch.tensor(words, dtype=torch.long)
            targets[at, : len(words) + 1] = torch.tensor(words + [eos])
        rows = torch.tensor([row for row, _ in captions])
        logits = self({n: c[rows] for n, c in columns.items()}, {n: p[rows] for n, p in present.items()}, tokens)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, label_smoothing=0.1)

    def named(self):
        """Parameters under the names of icecap's files."""
        yield from ((n.replace("|", "."), p) for n, p in self.own.items())
        yield from ((n.removeprefix("transformer."), p) for n, p in self.model.named_parameters())


def train(model, columns, present, facts):
    spec, losses = facts["train"], []
    named = dict(model.named())
    groups = [
        {"params": [p for p in named.values() if p.dim() > 1], "weight_decay": spec["weight_decay"]},
        {"params": [p for p in named.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=spec["betas"])
    for batch, rate in zip(facts["batches"], facts["rates"]):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = model.loss(columns, present, [facts["captions"][i] for i in batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), spec["clip"])
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def greedy(model, columns, present, facts):
    """By GPT2LMHeadModel's own generate where it can (no cross-attention there with embeddings), else step by step."""
    eos, said = model.case["eos"], []
    never = [t for t in (model.case["bos"], model.case["pad"]) if t != eos]
    for i in range(len(facts["rows"])):
        one = lambda table: {n: t[i : i + 1] for n, t in table.items()}
        tokens = []
        while len(tokens) < facts["max_length"]:
            logits = model(one(columns), one(present), torch.tensor([tokens], dtype=torch.long))[0, -1]
            logits[never + ([eos] if not tokens else [])] = -float("inf")
            token = int(logits.argmax())
            if token == eos:
                break
            tokens.append(token)
        said.append(tokens)
    return said


def compare(folder, name):
    case, facts = (json.loads((folder / name / f).read_text()) for f in ("case.json", "facts.json"))
    columns = load_file(folder / name / "columns.safetensors")
    present = {n: torch.ones(len(c)) for n, c in columns.items()}
    present["grid"][7] = 0.0
    weights = load_file(folder / name / "before.safetensors")
    model = Captioner(folder / name / "hf", case, weights)
    same = all(torch.equal(p, weights[n]) for n, p in model.named())
    first, there = {n: c[:10] for n, c in columns.items()}, {n: p[:10] for n, p in present.items()}
    outputs, worst = load_file(folder / name / "outputs.safetensors"), {}
    with torch.no_grad():
        logits = model(first, there, torch.tensor([FED[1:]] * 10))
    worst["logits"] = (logits - outputs["logits"]).abs().max().item()
    loss = model.loss(columns, present, [c for c in facts["captions"] if c[0] < 10])
    worst["loss"] = abs(loss.item() - outputs["loss"].item())
    loss.backward()
    gradients = load_file(folder / name / "gradients.safetensors")
    assert set(gradients) == set(dict(model.named())), set(gradients) ^ set(dict(model.named()))
    scale = max(p.grad.abs().max().item() for _, p in model.named())
    worst["gradient"] = max((gradients[n] - p.grad).abs().max().item() for n, p in model.named()) / scale
    ours = [json.loads(line) for line in (folder / name / "run/metrics.jsonl").read_text().splitlines()]
    ours = [line["loss"] for line in ours if "loss" in line]
    theirs = train(model, columns, present, facts)
    assert len(ours) == len(theirs)
    worst["curve"] = max(abs(a - b) for a, b in zip(ours, theirs))
    checkpoint = folder / name / "run/checkpoints/last"
    trained = Captioner(checkpoint, case, load_file(checkpoint / "model.safetensors"))
    said = greedy(trained, first, there, facts)
    equal = sum(a == b for a, b in zip(said, facts["greedy"]))
    print(f"{name:6} {sum(p.numel() for _, p in model.named()) / 1e6:6.1f} M", {k: f"{v:.1e}" for k, v in worst.items()}, end=" ")
    print(f"loss {theirs[0]:.3f} -> {theirs[-1]:.3f} in {len(theirs)} steps; read alike {same}; greedy {equal}/{len(said)} equal")
    limits = {"logits": 1e-4, "loss": 1e-5, "gradient": 1e-4, "curve": 1e-3}
    return same and equal == len(said) and all(value < limits[key] for key, value in worst.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="small,cross,mlp,124M")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    logging.set_verbosity_error()
    folder = args.keep or Path(tempfile.mkdtemp())
    try:
        for name in args.cases.split(","):
            (folder / name).mkdir(parents=True)
            prepare(folder, name)
        command = ["cargo", "test", "--quiet", "-p", "icecap", "--lib", "trainer::parity_gpt2", "--", "--ignored"]
        subprocess.run(command, check=True, env={**os.environ, "ICECAP_PARITY": str(folder)}, stdout=subprocess.DEVNULL)
        sys.exit(0 if all([compare(folder, name) for name in args.cases.split(",")]) else 1)
    finally:
        if not args.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
