"""What a user would write instead of `icecap encode`: torchvision, a DataLoader, hooks, and one .npy memory map a column.

    python benches/encode_torch.py --images DIR --model resnet18 --state resnet18.pth --columns layer4,avgpool --out DIR
    python benches/encode_torch.py ... --autocast bf16                                      the same under torch.autocast
    python benches/encode_torch.py ... --device cuda --autocast f16 --workers 16 --batch 128     on a GPU

f32 (or autocast), channels_last, inference_mode, the columns saved as f16. Prints one JSON line: images, seconds, images per
second. The decode workers and the compute threads share the same cores, as they do for icecap; `--workers` and `--threads` say how.
On a GPU the loader pins its batches and copies them without waiting, and the first batch is not in the time.
"""

import argparse, contextlib, json, os, time

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2


class Pictures(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths
        self.transform = v2.Compose(
            [
                v2.Resize(256, antialias=True),
                v2.CenterCrop(224),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--state", required=True, help="the state dict that the ONNX file was exported from")
    parser.add_argument("--columns", default="avgpool")
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", choices=["bf16", "f16"])
    parser.add_argument("--contiguous", action="store_true", help="NCHW in place of channels_last")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    names = sorted(os.listdir(args.images))
    paths = [os.path.join(args.images, name) for name in names if name.lower().endswith(".jpg")] * args.repeat
    model = torchvision.models.get_model(args.model)
    model.load_state_dict(torch.load(args.state, weights_only=True))
    memory = torch.contiguous_format if args.contiguous else torch.channels_last
    model = model.eval().to(args.device, memory_format=memory)
    gpu = args.device.startswith("cuda")
    precision = contextlib.nullcontext()
    if args.autocast:
        kind = {"bf16": torch.bfloat16, "f16": torch.float16}[args.autocast]
        precision = torch.autocast("cuda" if gpu else "cpu", dtype=kind)

    kept, columns, maps = {}, args.columns.split(","), {}
    for column in columns:
        module = model.get_submodule(column)
        module.register_forward_hook(lambda _, __, output, column=column: kept.__setitem__(column, output))

    os.makedirs(args.out, exist_ok=True)
    loader = torch.utils.data.DataLoader(
        Pictures(paths),
        batch_size=args.batch,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=gpu,
    )
    with torch.inference_mode(), precision:
        if gpu:
            # CUDA's start and the choice of kernels belong to no rate.
            model(torch.zeros(args.batch, 3, 224, 224, device=args.device).to(memory_format=memory))
            torch.cuda.synchronize()
        start = time.perf_counter()
        done = 0
        for batch in loader:
            model(batch.to(args.device, memory_format=memory, non_blocking=True))
            for column in columns:
                # [N, C, H, W] -> [N, H*W, C], as icecap lays a grid out
                rows = kept[column].flatten(2).transpose(1, 2).squeeze(1).half().cpu().numpy()
                if column not in maps:
                    shape = (len(paths), *rows.shape[1:])
                    maps[column] = np.lib.format.open_memmap(
                        os.path.join(args.out, f"{column}.npy"), "w+", np.float16, shape
                    )
                maps[column][done : done + len(rows)] = rows
            done += len(batch)
    for array in maps.values():
        array.flush()
    seconds = time.perf_counter() - start
    print(json.dumps({"images": done, "seconds": round(seconds, 3), "images_per_second": round(done / seconds, 2)}))


if __name__ == "__main__":
    main()
