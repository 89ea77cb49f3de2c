"""BLEU, ROUGE-L and CIDEr of `icecap evaluate` beside pycocoevalcap's, with the time each takes from raw text.

    pip install pycocoevalcap        (its tokenizer needs Java)
    python benches/metrics_parity.py --captions data/flickr8k/Flickr8k.token.txt                  parity: 1,000 images
    python benches/metrics_parity.py --captions data/flickr8k/Flickr8k.token.txt --speed          time: 5,000 images x 5

Parity: each image's first caption against its other four. Speed: the next image's first caption against all five.
Exits with 1 where a score differs by more than 1e-4, or, with --speed, where icecap isn't 20 times as fast.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOLERANCE = 1e-4
TIMES_FASTER = 20


def read_captions(path):
    """Image name -> its five captions, in the file's order."""
    images = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t", 1)
        image, number = name.split("#")
        if image.endswith(".jpg"):
            images.setdefault(image, {})[int(number)] = caption
    return {image: [captions[k] for k in range(5)] for image, captions in images.items() if len(captions) == 5}


def task(images, count, speed):
    """(candidates, references), one entry an image."""
    captions = list(images.values())
    count = min(count, len(captions) - 1)
    if speed:
        return [captions[i + 1][0] for i in range(count)], captions[:count]
    return [five[0] for five in captions[:count]], [five[1:] for five in captions[:count]]


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


def icecap(program, results, annotations):
    """Scores and seconds, the program's start and its reading of the files included."""
    command = [program, "evaluate", results, "--annotations", annotations, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - start
    scores = json.loads(done.stdout)
    return [*scores["bleu"], scores["rouge_l"], scores["cider"]], seconds


def pycocoevalcap(candidates, references):
    """Scores and seconds, importing and writing to disk not included."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    start = time.perf_counter()
    truth = {i: [{"caption": caption} for caption in captions] for i, captions in enumerate(references)}
    found = {i: [{"caption": caption}] for i, caption in enumerate(candidates)}
    truth, found = PTBTokenizer().tokenize(truth), PTBTokenizer().tokenize(found)
    bleu, _ = Bleu(4).compute_score(truth, found, verbose=0)
    rouge, _ = Rouge().compute_score(truth, found)
    cider, _ = Cider().compute_score(truth, found)
    return [*bleu, float(rouge), float(cider)], time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True, help="Flickr8k.token.txt")
    parser.add_argument("--icecap", default="target/release/icecap", help="the program")
    parser.add_argument("--images", type=int, help="1,000, or 5,000 with --speed")
    parser.add_argument("--speed", action="store_true", help="all five references; require 20 times the speed")
    args = parser.parse_args()

    candidates, references = task(read_captions(args.captions), args.images or (5000 if args.speed else 1000), args.speed)
    with tempfile.TemporaryDirectory() as folder:
        files = write_coco(Path(folder), candidates, references)
        runs = [icecap(args.icecap, *files) for _ in range(3)]
    ours, seconds = min(runs, key=lambda run: run[1])
    theirs, reference_seconds = pycocoevalcap(candidates, references)

    print(f"{len(candidates)} images, {sum(map(len, references))} references")
    print(f"{'':10}{'icecap':>14}{'pycocoevalcap':>16}{'difference':>14}")
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    for name, mine, other in zip(names, ours, theirs):
        print(f"{name:10}{mine:14.9f}{other:16.9f}{abs(mine - other):14.1e}")
    faster = reference_seconds / seconds
    print(f"{'seconds':10}{seconds:14.3f}{reference_seconds:16.3f}{faster:13.1f}x")
    equal = all(abs(mine - other) <= TOLERANCE for mine, other in zip(ours, theirs))
    return 0 if equal and (not args.speed or faster >= TIMES_FASTER) else 1


if __name__ == "__main__":
    sys.exit(main())
