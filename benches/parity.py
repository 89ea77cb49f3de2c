"""Embeddings against torchvision: 200 original photographs, resnet18 and densenet121, pooled and grid columns.

    .venv/bin/python benches/parity.py

Exports each network with seeded random weights, encodes the photographs, and has parity_embeddings.py compare every row of every
column with what torchvision computes: the cosine must be above 0.9999.
"""

import os, subprocess, sys, tempfile
from pathlib import Path

from common import DATA, PYTHON, ROOT, encode, need, run
from stage_one import recipe

COLUMNS = {
    "resnet18": [("avgpool", "avgpool", "none"), ("layer4", "layer4", "none"), ("layer3-4x4", "layer3", "4x4")],
    "densenet121": [("avgpool", "avgpool", "none"), ("features", "features", "none")],
}


def main():
    originals = DATA / "flickr8k/originals"
    need(originals)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = work / "images"
        images.mkdir()
        for name in sorted(os.listdir(originals))[:200]:
            os.symlink(originals.resolve() / name, images / name)
        for name, columns in COLUMNS.items():
            run(PYTHON, ROOT / "pipelines/export_onnx.py", name, "--weights", "random:3", "-o", work / f"{name}.onnx")
            path = recipe(work, images, work / f"{name}.onnx", columns)
            encode(path, work, work / name)
            command = [PYTHON, ROOT / "benches/parity_embeddings.py", work / name, "--images", images]
            failed |= subprocess.call([str(part) for part in [*command, "--weights", "random:3", "--encoder", name]]) != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
