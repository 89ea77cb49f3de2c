"""What a user would write instead of `icecap encode`: torchvision, a DataLoader, hooks, and one .npy memory map a column.

    python benches/encode_torch.py --images DIR --model resnet18 --state resnet18.pth --columns layer4,avgpool --out DIR

f32, channels_last, inference_mode, the columns saved as f16. Prints one JSON line: images, seconds, images per second.
The decode workers and the compute threads share the same cores, as they do for icecap; `--workers` and `--threads` say how.
"""

import argparse, json, os, time

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
    parser.add_argument("--contiguous", action="store_true", help="NCHW in place of channels_last")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    names = sorted(os.listdir(args.images))
    paths = [os.path.join(args.images, name) for name in names if name.lower().endswith(".jpg")] * args.repeat
    model = torchvision.models.get_model(args.model)
    model.load_state_dict(torch.load(args.state, weights_only=True))
    memory = torch.contiguous_format if args.contiguous else torch.channels_last
    model = model.eval().to(memory_format=memory)

    kept, columns, maps = {}, args.columns.split(","), {}
    for column in columns:
        module = model.get_submodule(column)
        module.register_forward_hook(lambda _, __, output, column=column: kept.__setitem__(column, output))

    os.makedirs(args.out, exist_ok=True)
    loader = torch.utils.data.DataLoader(
        Pictures(paths), batch_size=args.batch, num_workers=args.workers, persistent_workers=args.workers > 0
    )
    start = time.perf_counter()
    done = 0
    with torch.inference_mode():
        for batch in loader:
            model(batch.to(memory_format=memory))
            for column in columns:
                # [N, C, H, W] -> [N, H*W, C], as icecap lays a grid out
                rows = kept[column].flatten(2).transpose(1, 2).squeeze(1).half().numpy()
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
