#!/usr/bin/env python3
"""Exports a torchvision encoder to ONNX, with stable names for the tensors worth tapping.

    python export_onnx.py resnet18 --weights pretrained -o resnet18.onnx
    python export_onnx.py densenet121 --weights random:7 -o densenet121.onnx
    python export_onnx.py resnet50 --weights my_state_dict.pth -o resnet50.onnx --size 288 288

The same arguments give the same bytes. BatchNorm is folded into the convolutions before it, the batch and the picture's size
stay open, and the metadata holds how the encoder wants its pictures (keys `icecap.*`, values JSON or text). Needs torch,
torchvision and onnx. `icecap export` runs this file; what it prints to stderr after `export: ` is shown to the user.
"""

import argparse
import hashlib
import json
import os
import sys
import warnings

OPSET = 17
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESNET = ["layer1", "layer2", "layer3", "layer4", "avgpool"]
DENSENET = ["denseblock1", "denseblock2", "denseblock3", "denseblock4", "features", "avgpool"]
INCEPTION = ["Mixed_5d", "Mixed_6e", "Mixed_7c", "avgpool"]
FASTERRCNN = ["fpn.0", "fpn.1", "fpn.2", "fpn.3", "fpn.pool"]
# name: (tensors worth tapping, shorter side after the resize, side of the crop)
ENCODERS = {
    "resnet18": (RESNET, 256, 224),
    "resnet34": (RESNET, 256, 224),
    "resnet50": (RESNET, 256, 224),
    "resnet101": (RESNET, 256, 224),
    "densenet121": (DENSENET, 256, 224),
    "inception_v3": (INCEPTION, 342, 299),
    "fasterrcnn_resnet50_fpn": (FASTERRCNN, 800, 800),
}


class Failed(Exception):
    """A message for the user, with its hint."""


def build(name, weights):
    """The torchvision model in eval mode, and a line that says where its weights are from."""
    import torch
    import torchvision

    if name.startswith("fasterrcnn"):
        return build_detector(torch, torchvision, name, weights)
    make = getattr(torchvision.models, name)
    options = {"aux_logits": True} if name == "inception_v3" else {}
    if weights == "pretrained":
        return download(torchvision, name, make)
    if weights == "random" or weights.startswith("random:"):
        seed = seeded(torch, weights)
        if name == "inception_v3":
            options["init_weights"] = False
        model = make(weights=None, **options).eval()
        if name == "inception_v3":
            # Its own initialisation lets activations grow to 1e12, and the layers' default shrinks them to 1e-6: neither fits f16.
            # Kaiming's, as in torchvision's other encoders, keeps them near 1.
            for layer in model.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return model, f"random seed {seed}"
    return load(torch, name, make, weights, options)


def seeded(torch, weights):
    seed = weights.partition(":")[2] or "0"
    if not seed.isdigit():
        raise Failed(f"`{weights}` is no seed\nhint: random, or random:7")
    torch.manual_seed(int(seed))
    return int(seed)


def build_detector(torch, torchvision, name, weights):
    """As `build`, for Faster R-CNN: its batch norms are frozen ones, whatever they were while it was trained."""
    from torchvision.models.detection import backbone_utils, faster_rcnn

    def make(weights=None, classes=91):
        if weights is not None:
            return getattr(torchvision.models.detection, name)(weights=weights)
        body = torchvision.models.resnet50(weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d)
        return faster_rcnn.FasterRCNN(backbone_utils._resnet_fpn_extractor(body, 3), num_classes=classes)

    if weights == "pretrained":
        return download(torchvision, name, make)
    if weights == "random" or weights.startswith("random:"):
        seed = seeded(torch, weights)
        model = make()
        for part, module in model.named_modules():
            # Nothing normalises a frozen net: each block adds to the sum before it, and halved additions keep the layers near 1.
            if part.endswith(".bn3"):
                torch.nn.init.constant_(module.weight, 0.5)
        return model.eval(), f"random seed {seed}"

    def make_for(state):
        model = make(classes=len(state.get("roi_heads.box_predictor.cls_score.bias", range(91))))
        # torchvision trained its own weights (which have no such counters) with an epsilon of 0 in the norms.
        if not any(key.endswith("num_batches_tracked") for key in state):
            for module in model.modules():
                if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
                    module.eps = 0.0
        return model

    return load(torch, name, make, weights, {}, make_for)


def download(torchvision, name, make):
    choices = torchvision.models.get_model_weights(name)
    choice = getattr(choices, "IMAGENET1K_V1", None) or choices.COCO_V1
    try:
        return make(weights=choice).eval(), f"torchvision {choice}"
    except OSError as error:
        raise Failed(
            f"the weights of `{name}` could not be downloaded from {choice.url}: {getattr(error, 'reason', error)}\n"
            "hint: download that file elsewhere and give it with --weights FILE, or try --weights random"
        ) from error


def load(torch, name, make, path, options, make_for=None):
    if not os.path.isfile(path):
        raise Failed(f"there are no weights `{path}`\nhint: pretrained, random, random:SEED, or the path of a state dict (.pth)")
    if name == "inception_v3":
        # torchvision's trained weights expect their input shifted as their first framework did; so do files of them.
        options = dict(options, transform_input=True, init_weights=False)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Failed(f"`{path}` cannot be read as a state dict ({type(error).__name__})\nhint: save one with torch.save(model.state_dict(), PATH)") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise Failed(f"`{path}` holds {type(state).__name__}, not a state dict\nhint: save one with torch.save(model.state_dict(), PATH)")
    if all(key.startswith("module.") for key in state):
        state = {key[len("module.") :]: value for key, value in state.items()}
    model = make_for(state) if make_for else make(weights=None, **options)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise Failed(f"`{path}` does not fit `{name}`: {' '.join(str(error).split())[:300]}\nhint: name the encoder that it was saved from") from error
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return model.eval(), f"file sha256 {digest}"


def tapped(name, model):
    """The same model as a module that returns its tapped tensors and its logits."""
    import torch
    from torch.nn import functional

    class ResNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            m = self.model
            taps = [m.layer1(m.maxpool(m.relu(m.bn1(m.conv1(x)))))]
            for layer in (m.layer2, m.layer3, m.layer4):
                taps.append(layer(taps[-1]))
            taps.append(torch.flatten(m.avgpool(taps[-1]), 1))
            return (*taps, m.fc(taps[-1]))

    class DenseNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            taps = []
            for part, module in self.model.features.named_children():
                x = module(x)
                if part.startswith("denseblock"):
                    taps.append(x)
            taps.append(functional.relu(x))
            taps.append(torch.flatten(functional.adaptive_avg_pool2d(taps[-1], (1, 1)), 1))
            return (*taps, self.model.classifier(taps[-1]))

    class Inception(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            m, taps = self.model, []
            x = m._transform_input(x)
            for part, module in m.named_children():
                if part in ("AuxLogits", "avgpool", "dropout", "fc"):
                    continue
                x = module(x)
                if part in INCEPTION:
                    taps.append(x)
            taps.append(torch.flatten(m.avgpool(x), 1))
            return (*taps, m.fc(taps[-1]))

    kind = {"r": ResNet, "d": DenseNet, "i": Inception}[name[0]]
    return kind().eval()


def detector_parts(model):
    """Faster R-CNN as what networks compute of it: the rest (anchors, choosing, suppressing) is the detector's, in icecap.

    `images` [N, 3, H, W], already resized, normalised and padded -> the levels of the pyramid, and for each of them
    `rpn.objectness.L` [N, A, h, w] and `rpn.deltas.L` [N, 4A, h, w]. `regions.L` [R, 5] (image, x1, y1, x2, y2 in pixels of the input),
    those of level L, from 0 to 3 -> for the regions of all levels, one level after another, `box_features` [R, 1024],
    `class_logits` [R, classes] and `box_deltas` [R, 4 classes].
    """
    import torch
    import torchvision

    for module in model.modules():
        for part, norm in module.named_children():
            if isinstance(norm, torchvision.ops.FrozenBatchNorm2d):
                # The same arithmetic as a layer that the exporter knows to fold into the convolution before it, and which refuses an
                # epsilon of 0.
                plain = torch.nn.BatchNorm2d(norm.weight.numel(), eps=1e-12)
                plain.load_state_dict(norm.state_dict(), strict=False)
                plain.running_var += norm.eps
                setattr(module, part, plain)

    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images, *regions):
            m = self.model
            levels = list(m.backbone(images).values())
            objectness, deltas = m.rpn.head(levels)
            pool = m.roi_heads.box_roi_pool
            pooled = [
                torchvision.ops.roi_align(level, rois, pool.output_size, spatial_scale=0.25 / 2**index, sampling_ratio=pool.sampling_ratio)
                for index, (level, rois) in enumerate(zip(levels, regions))
            ]
            features = m.roi_heads.box_head(torch.cat(pooled))
            return (*levels, *objectness, *deltas, features, *m.roi_heads.box_predictor(features))

    return Parts().eval()


DETECTED = ["box_features", "class_logits", "box_deltas"]


def trace(name, model, size, buffer):
    """Writes what torch's exporter makes of the model to `buffer`; returns the names that stay outputs."""
    import torch

    inputs, names = [torch.zeros(1, 3, *size)], ["images"]
    axes = {"images": {0: "N", 2: "H", 3: "W"}}
    if name.startswith("fasterrcnn"):
        module = detector_parts(model)
        for level in range(4):
            names.append(f"regions.{level}")
            axes[names[-1]] = {0: f"R{level}"}
            inputs.append(torch.tensor([[0.0, 0.0, 0.0, 64.0, 64.0]]))
        kept = [f"rpn.{kind}.{level}" for kind in ("objectness", "deltas") for level in range(5)] + DETECTED
        outputs = [*FASTERRCNN, *kept]
    else:
        module, kept = tapped(name, model), ["logits"]
        outputs = [*ENCODERS[name][0], *kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(inputs), buffer, opset_version=OPSET, dynamo=False, input_names=names, output_names=outputs, dynamic_axes=axes
        )
    return kept


def to_onnx(name, model, size):
    """The ONNX model: the taps are inner tensors under their names, and what ends the network is its output."""
    import io

    import onnx

    buffer = io.BytesIO()
    kept = trace(name, model, size, buffer)
    graph = onnx.load_model_from_string(buffer.getvalue())
    last = [output for output in graph.graph.output if output.name in kept]
    del graph.graph.output[:], graph.graph.value_info[:], graph.metadata_props[:]
    for output in last:
        sizes = output.type.tensor_type.shape.dim
        open_sizes = ["R" if output.name in DETECTED else "N", None, "h", "w"]
        shape = [known or size.dim_value for known, size in zip(open_sizes, sizes)]
        graph.graph.output.append(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    share_weights(graph.graph)
    for node in graph.graph.node:
        node.doc_string = ""
    graph.producer_name, graph.producer_version, graph.doc_string, graph.graph.name = "icecap", "1", "", name
    return graph


def share_weights(graph):
    """The exporter copies equal weights by Identity nodes; their readers read the weight itself."""
    weights = {weight.name for weight in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in weights}
    kept = [node for node in graph.node if node.output[0] not in same]
    for node in kept:
        for index, tensor in enumerate(node.input):
            node.input[index] = same.get(tensor, tensor)
    del graph.node[:]
    graph.node.extend(kept)


def describe(graph, name, weights, size):
    """Writes how the encoder wants its pictures into the model's metadata."""
    taps, resize, crop = ENCODERS[name]
    resize = round(resize * min(size) / crop)
    values = {
        "encoder": name,
        "weights": weights,
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "resize": json.dumps(resize),
        "crop": json.dumps(list(size)),
        "interpolation": "bilinear",
        "taps": json.dumps(taps),
    }
    for key, value in values.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = f"icecap.{key}", value


def write(graph, path):
    """Writes beside the target and renames: a model is there whole or not at all."""
    import onnx

    onnx.checker.check_model(graph)
    unfinished = f"{path}.{os.getpid()}.part"
    try:
        with open(unfinished, "wb") as file:
            file.write(graph.SerializeToString(deterministic=True))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise Failed(f"cannot write `{path}`: {error.strerror}") from error
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def main():
    parser = argparse.ArgumentParser(prog="export_onnx.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("name", help=", ".join(ENCODERS))
    parser.add_argument("--weights", default="pretrained", help="pretrained, random, random:SEED, or the path of a state dict")
    parser.add_argument("-o", "--output", required=True, help="the .onnx to write")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="picture size, where not the encoder's own")
    arguments = parser.parse_args()
    if arguments.name not in ENCODERS:
        raise Failed(f"no encoder is called `{arguments.name}`\nhint: {', '.join(ENCODERS)}")
    crop = ENCODERS[arguments.name][2]
    size = tuple(arguments.size or (crop, crop))
    if min(size) < 75 and arguments.name == "inception_v3" or min(size) < 32:
        raise Failed(f"pictures of `{size[0]}x{size[1]}` are too small for {arguments.name}\nhint: 32 pixels a side at least, 75 for inception_v3")
    model, weights = build(arguments.name, arguments.weights)
    graph = to_onnx(arguments.name, model, size)
    describe(graph, arguments.name, weights, size)
    write(graph, arguments.output)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"export: {failure}")
    except ModuleNotFoundError as missing:
        sys.exit(f"export: the Python at `{sys.executable}` has no `{missing.name}`\nhint: run `make setup`, or name another Python with --python FILE")
