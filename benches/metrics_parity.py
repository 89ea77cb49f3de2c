"""The scores of `icecap evaluate` beside pycocoevalcap's, with the time each takes from raw text.

    make setup EXTRAS=metrics        (pycocoevalcap; its tokenizer, METEOR and SPICE need Java)
    python benches/metrics_parity.py --captions captions_val2017.json         5,000 images of COCO: parity and time
    python benches/metrics_parity.py --captions Flickr8k.token.txt            1,000 images of Flickr8k: parity
    python benches/metrics_parity.py --captions Flickr8k.token.txt --speed    5,000 images x 5 references: time

Parity: each image's first caption against its others. With --speed: the next image's first caption against all five, as captions of a model are
none of the references. `--java` runs METEOR and SPICE on both sides too, outside of the time that is compared.
Exits with 1 where a score differs by more than 1e-4, or where icecap isn't 20 times as fast on 5,000 images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOLERANCE = 1e-4
TIMES_FASTER = 20
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def read_captions(path):
    """Each image's captions, images in the file's order: Flickr8k's token file, or COCO's captions."""
    images = {}
    if path.suffix == ".json":
        for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            images.setdefault(annotation["image_id"], []).append(annotation["caption"])
        return [captions for captions in images.values() if len(captions) > 1]
    for line in path.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t", 1)
        image, number = name.split("#")
        if image.endswith(".jpg"):
            images.setdefault(image, {})[int(number)] = caption
    return [[captions[k] for k in range(5)] for captions in images.values() if len(captions) == 5]


def task(images, count, speed):
    """(candidates, references), one entry an image."""
    if speed:
        count = min(count, len(images) - 1)
        return [images[i + 1][0] for i in range(count)], images[:count]
    return [captions[0] for captions in images[:count]], [captions[1:] for captions in images[:count]]


def write_coco(folder, candidates, references):
    """COCO's results and annotations of the task; image ids count from 1."""
    results, annotations = folder / "results.json", folder / "captions.json"
    results.write_text(json.dumps([{"image_id": i, "caption": c} for i, c in enumerate(candidates, 1)]))
    pairs = [(i, caption) for i, captions in enumerate(references, 1) for caption in captions]
    annotations.write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, len(references) + 1)],
        "annotations": [{"id": k, "image_id": i, "caption": caption} for k, (i, caption) in enumerate(pairs, 1)],
    }))
    return results, annotations


def icecap(program, results, annotations, *more):
    """What it prints, seconds of the whole command (its start and its reading of the files included), and its seconds on the CPU."""
    command = [program, "evaluate", results, "--annotations", annotations, "--json", *more]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout), seconds, cpu


def tokenized(candidates, references):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    truth = {i: [{"caption": caption} for caption in captions] for i, captions in enumerate(references)}
    found = {i: [{"caption": caption}] for i, caption in enumerate(candidates)}
    return PTBTokenizer().tokenize(truth), PTBTokenizer().tokenize(found)


def pycocoevalcap(candidates, references):
    """Scores, seconds and CPU seconds, Java's included; importing and writing to disk not."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    before, start = os.times(), time.perf_counter()
    truth, found = tokenized(candidates, references)
    bleu, _ = Bleu(4).compute_score(truth, found, verbose=0)
    rouge, _ = Rouge().compute_score(truth, found)
    cider, _ = Cider().compute_score(truth, found)
    seconds, after = time.perf_counter() - start, os.times()
    return [*bleu, float(rouge), float(cider)], seconds, sum(after[:4]) - sum(before[:4])


def java(candidates, references):
    """METEOR and SPICE by pycocoevalcap's own hand; None where it can't."""
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.spice import spice

    truth, found = tokenized(candidates, references)
    meteor, _ = Meteor().compute_score(truth, found)
    models = Path(spice.__file__).parent / "lib" / "stanford-corenlp-3.6.0-models.jar"
    # It would fetch 400 MB by itself.
    return meteor, float(spice.Spice().compute_score(truth, found)[0]) if models.exists() else None


def compare(names, ours, theirs):
    """Prints both; gives whether they are equal."""
    for name, mine, other in zip(names, ours, theirs):
        shown = [f"{value:.9f}" if value is not None else "absent" for value in (mine, other)]
        difference = f"{abs(mine - other):.1e}" if None not in (mine, other) else ""
        print(f"{name:10}{shown[0]:>14}{shown[1]:>16}{difference:>14}")
    pairs = list(zip(ours, theirs))
    return all((a is None) == (b is None) and (a is None or abs(a - b) <= TOLERANCE) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True, help="captions_val2017.json, or Flickr8k.token.txt")
    parser.add_argument("--icecap", default="target/release/icecap", help="the program")
    parser.add_argument("--images", type=int, help="5,000, or 1,000 of Flickr8k without --speed")
    parser.add_argument("--speed", action="store_true", help="all references; require 20 times the speed")
    parser.add_argument("--java", action="store_true", help="METEOR and SPICE too: minutes")
    args = parser.parse_args()

    coco = args.captions.suffix == ".json"
    candidates, references = task(read_captions(args.captions), args.images or (5000 if args.speed or coco else 1000), args.speed)
    print(f"{len(candidates)} images, {sum(map(len, references))} references")
    print(f"{'':10}{'icecap':>14}{'pycocoevalcap':>16}{'difference':>14}")
    with tempfile.TemporaryDirectory() as folder:
        files = write_coco(Path(folder), candidates, references)
        # What pycocoevalcap does too: the six scores and no intervals. Then all that is printed by default.
        runs = [icecap(args.icecap, *files, "--no-java", "--resamples", "0") for _ in range(5)]
        whole = min(icecap(args.icecap, *files, "--no-java")[1] for _ in range(5))
        both = icecap(args.icecap, *files, "--python", sys.executable)[0] if args.java else None
    scores, seconds, cpu = min(runs, key=lambda run: run[1])
    theirs, reference_seconds, reference_cpu = min((pycocoevalcap(candidates, references) for _ in range(2)), key=lambda run: run[1])
    equal = compare(NAMES, [*scores["bleu"], scores["rouge_l"], scores["cider"]], theirs)
    if both:
        equal &= compare(["METEOR", "SPICE"], [both["meteor"], both["spice"]], java(candidates, references))
    faster = reference_seconds / seconds
    print(f"{'seconds':10}{seconds:14.3f}{reference_seconds:16.3f}{faster:13.1f}x")
    print(f"{'CPU':10}{cpu:14.3f}{reference_cpu:16.3f}{reference_cpu / cpu:13.1f}x")
    print(f"{'intervals':10}{whole:14.3f}{'':16}{reference_seconds / whole:13.1f}x   (with 1,000 resamples)")
    return 0 if equal and (len(candidates) < 5000 or faster >= TIMES_FASTER) else 1


if __name__ == "__main__":
    sys.exit(main())
