#!/usr/bin/env python3
"""What an exported set is worth by PyTorch, beside what `retort eval` says: the same kind of network, trained by the same
protocol, in code that shares nothing with Retort but the export (images, labels, normalisation, recipe).

Takes an export of `retort export --format npz`. Real test images are read here too (IDX, CIFAR-10's binary records,
.npz). Both protocols, both kinds of network, all norms, activations and pools; mirrors and rotations; the DSA
augmentation (colour, crop, cutout, flip, scale, rotate) of the DC protocol.

Prints mean, standard deviation and standard error of both at every number of steps; they agree where the means differ by
at most two standard errors of their difference at the step that Retort reports. Exit status 1 where not. Started by
bench/export_check.sh."""
import argparse
import gzip
import json
import math
import pathlib
import statistics
import subprocess
import sys

import numpy as np

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    print("skip    PyTorch beside retort eval: no torch")
    sys.exit(0)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("--retort", default="build/retort")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--steps", help="bptt: other numbers of steps than the recipe's, as 300,600")
    parser.add_argument("--epochs", type=int, help="dc: another number of epochs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="of Retort")
    parser.add_argument("--name", default="", help="printed in front")
    return parser.parse_args()


# --- real test images ---
def read_idx(folder, stem):
    for path in sorted(pathlib.Path(folder).glob(f"{stem}*")):
        data = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
        rank = data[3]
        shape = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(rank)]
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    raise SystemExit(f"{folder} has no {stem}")


def read_test(data):
    """Pixels [N,C,H,W] in [0,1] and labels of the test part that a recipe's `data` names."""
    if data["kind"] == "idx":
        images, labels = read_idx(data["path"], "t10k-images")[:, None] / 255, read_idx(data["path"], "t10k-labels")
    elif data["kind"] == "cifar10":
        path = next(pathlib.Path(data["path"]).rglob("test_batch.bin"))
        rows = np.fromfile(path, np.uint8).reshape(-1, 3073)
        images, labels = rows[:, 1:].reshape(-1, 3, 32, 32) / 255, rows[:, 0]
    elif data["kind"] == "npy" and not data["labels"]:
        file = np.load(data["path"])
        images, labels = file["test_images"], file["test_labels"]
        images = images / 255 if images.dtype == np.uint8 else images
    else:
        print(f"skip    PyTorch beside retort eval: it does not read {data['kind']} here")
        sys.exit(0)
    labels = labels.astype(np.int64)
    if data["classes"] != "all":
        kept = np.isin(labels, data["classes"])
        images = images[kept]
        labels = np.array([data["classes"].index(label) for label in labels[kept]])
    limit = len(images) if data["test_limit"] == "all" else data["test_limit"]
    return images[:limit], labels[:limit]


def normalise(pixels, data, kind):
    rows = pixels.reshape(len(pixels), -1)
    if kind == "mean_sd":
        mean, sd = (data[f"normalisation.{name}"].reshape(-1, 1, 1) for name in ("mean", "sd"))
        pixels = (pixels - mean) / sd
    elif kind == "zca":
        rows = rows - rows.mean(1, keepdims=True)
        pixels = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) @ data["normalisation.whiten"]
    elif kind == "zca_pixel":
        pixels = (rows - data["normalisation.mean"]) @ data["normalisation.whiten"]
    return torch.from_numpy(pixels.reshape(len(pixels), *data["images"].shape[1:]).astype(np.float32))


# --- networks ---
class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


def make_network(recipe, shape, classes):
    activation = dict(relu=nn.ReLU, leaky_relu=nn.LeakyReLU, sigmoid=nn.Sigmoid, gelu=nn.GELU,
                      swish=Swish)[recipe["activation"]]
    channels, height, width = shape
    units, layers = recipe["width"], []
    if recipe["kind"] == "mlp":
        inputs = channels * height * width
        for _ in range(recipe["depth"]):
            layers += [nn.Linear(inputs, units), activation()]
            inputs = units
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(inputs, classes))
    for _ in range(recipe["depth"]):
        layers.append(nn.Conv2d(channels, units, 3, padding=1))
        if recipe["norm"] == "batch":
            layers.append(nn.BatchNorm2d(units))
        elif recipe["norm"] != "none":
            layers.append(nn.GroupNorm(dict(instance=units, layer=1, group=recipe["groups"])[recipe["norm"]], units))
        layers.append(activation())
        if recipe["pool"] != "none":
            layers.append(nn.AvgPool2d(2) if recipe["pool"] == "average" else nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = units
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, classes))


# --- augmentation ---
def sample(images, matrices):
    """Output pixel (i, j), in pixels from the centre, reads the image at `matrices` [N,2,3] times (j, i, 1)."""
    height, width = images.shape[2:]
    v, u = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    at = torch.einsum("nrc,chw->nhwr", matrices, torch.stack([u, v, torch.ones_like(u)]))
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    return F.grid_sample(images, at * scale, mode="bilinear", padding_mode="zeros", align_corners=True)


def matrices_of(count, xx=1.0, xy=0.0, x0=0.0, yx=0.0, yy=1.0, y0=0.0):
    entries = [torch.as_tensor(e, dtype=torch.float32).expand(count) for e in (xx, xy, x0, yx, yy, y0)]
    return torch.stack(entries, 1).reshape(count, 2, 3)


def rotations(count, degrees):
    angle = (2 * torch.rand(count) - 1) * math.radians(degrees)
    return matrices_of(count, angle.cos(), -angle.sin(), 0.0, angle.sin(), angle.cos())


def mirrors(count):
    return matrices_of(count, 1 - 2.0 * torch.randint(2, (count,)))


def bptt_augmentation(recipe):
    flip, rotate = recipe["flip"], recipe["rotate"]
    if not flip and not rotate:
        return None

    def apply(images):
        does_flip, does_rotate = flip, rotate
        if flip and rotate and not recipe["compose"]:
            does_flip = bool(torch.randint(2, ()))
            does_rotate = not does_flip
        count = len(images)
        if does_flip:
            images = sample(images, mirrors(count))
        return sample(images, rotations(count, recipe["degrees"])) if does_rotate else images
    return apply


def dsa_augmentation(flip):
    def uniform(count, low, high):
        return low + (high - low) * torch.rand(count)

    def colour(x):
        n = len(x)
        x = x + uniform(n, -0.5, 0.5)[:, None, None, None]
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * uniform(n, 0, 2)[:, None, None, None] + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * uniform(n, 0.5, 1.5)[:, None, None, None] + mean

    def crop(x):
        shifts = [torch.randint(-int(s / 8 + 0.5), int(s / 8 + 0.5) + 1, (len(x),)).float() for s in x.shape[2:]]
        return sample(x, matrices_of(len(x), x0=shifts[1], y0=shifts[0]))

    def cutout(x):
        inside = []
        for axis in (2, 3):
            size = x.shape[axis]
            hole = int(size / 2 + 0.5)
            centre = torch.randint(0, size + 1 - hole % 2, (len(x), 1))
            # What lies outside of the image falls on its edge, which is in the hole anyway.
            at = (centre - hole // 2 + torch.arange(hole)[None]).clamp(0, size - 1)
            inside.append(torch.zeros(len(x), size).scatter_(1, at, 1.0))
        return x * (1 - inside[0][:, None, :, None] * inside[1][:, None, None, :])

    def scale(x):
        return sample(x, matrices_of(len(x), xx=uniform(len(x), 1 / 1.2, 1.2), yy=uniform(len(x), 1 / 1.2, 1.2)))

    families = [colour, crop, cutout, scale, lambda x: sample(x, rotations(len(x), 15))]
    if flip:
        families.append(lambda x: sample(x, mirrors(len(x))))
    return lambda x: families[int(torch.randint(len(families), ()))](x)


# --- protocols ---
def walk(count, most):
    """Batches of at most `most` rows, as equal as can be, through a new random order of all each epoch."""
    steps = -(-count // most)
    batch = -(-count // steps)
    while True:
        order = torch.randperm(count)
        order = torch.cat([order, order[:steps * batch - count]])
        yield from order.split(batch)


def draws(ipc, classes, per_class, chosen):
    """`per_class` of the ipc rows of each of `chosen` classes."""
    while True:
        picked = torch.randperm(classes)[:chosen].sort().values
        yield torch.cat([c * ipc + torch.randperm(ipc)[:per_class].sort().values for c in picked.tolist()])


def bptt_protocol(about, count):
    recipe, inner = about["recipe"], about["recipe"]["inner"]
    ipc, classes = about["ipc"], about["classes"]
    limit = lambda word, most: most if word == "all" else min(word, most)
    batch = inner["batch"]
    batches = (lambda: draws(ipc, classes, limit(batch["per_class"], ipc), limit(batch["classes"], classes))) if ipc \
        else (lambda: walk(count, 256))
    if inner["optimizer"] == "adam":
        make = lambda weights: torch.optim.Adam(weights, lr=about["inner_lr"], betas=tuple(inner["betas"]),
                                                eps=inner["eps"], weight_decay=inner["weight_decay"])
    else:
        make = lambda weights: torch.optim.SGD(weights, lr=about["inner_lr"], momentum=inner["momentum"],
                                               weight_decay=inner["weight_decay"])
    return batches, make, bptt_augmentation(recipe["outer"]["augment"]), recipe["evaluate"]["steps"], None


def dc_protocol(about, count):
    spec = about["recipe"]["evaluate"]
    epochs = spec["epochs"] if spec["epochs"] != "auto" else 1000 if spec["augment"] else 300
    a_walk = -(-count // 256)
    make = lambda weights, lr=0.01: torch.optim.SGD(weights, lr=lr, momentum=0.9, weight_decay=5e-4)
    augmentation = dsa_augmentation(spec["flip"]) if spec["augment"] else None
    return lambda: walk(count, 256), make, augmentation, [(epochs + 1) * a_walk], (epochs // 2 + 2) * a_walk


def train(network, images, labels, protocol, tests):
    """Percent correct after each of the protocol's numbers of steps."""
    batches, make, augmentation, steps, drop = protocol
    optimizer, found = make(network.parameters()), []
    for step, rows in enumerate(batches(), 1):
        x = images[rows]
        loss = F.cross_entropy(network(augmentation(x) if augmentation else x), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == drop:
            optimizer = make(network.parameters(), lr=0.001)
        if step in steps:
            network.eval()
            with torch.no_grad():
                right = sum(int((network(x).argmax(1) == y).sum()) for x, y in zip(tests[0].split(1000), tests[1].split(1000)))
            network.train()
            found.append(100 * right / len(tests[1]))
        if step == steps[-1]:
            return found


def summary(runs):
    sd = statistics.stdev(runs) if len(runs) > 1 else math.nan
    return statistics.mean(runs), sd, sd / math.sqrt(len(runs))


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = np.load(options.export / "set.npz")
    about = json.loads(data["about"].tobytes())
    recipe = about["recipe"]
    changes = [f"evaluate.networks={options.networks}"]
    if options.steps and recipe["evaluate"]["protocol"] == "bptt":
        recipe["evaluate"]["steps"] = [int(step) for step in options.steps.split(",")]
        changes.append(f"evaluate.steps=[{options.steps}]")
    if options.epochs and recipe["evaluate"]["protocol"] == "dc":
        recipe["evaluate"]["epochs"] = options.epochs
        changes.append(f"evaluate.epochs={options.epochs}")
    pixels, test_labels = read_test(recipe["data"])
    tests = normalise(pixels, data, about["normalisation"]), torch.from_numpy(test_labels)
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
    labels = labels if labels.is_floating_point() else labels.long()
    protocol = (dc_protocol if recipe["evaluate"]["protocol"] == "dc" else bptt_protocol)(about, len(images))
    network_recipe = recipe["evaluate"]["network"]

    command = [options.retort, "eval", str(options.export), "--json", "--quiet"]
    for change in changes:
        command += ["--set", change]
    if options.device:
        command += ["--device", options.device]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ours = result["accuracy"]["distilled"]
    runs = []
    for i in range(options.networks):
        network = make_network(network_recipe, images.shape[1:], about["classes"])
        runs.append(train(network, images, labels, protocol, tests))
        print(f"network {i + 1} of {options.networks}: {runs[-1]}", file=sys.stderr)

    agreed = False
    print(f"{options.name}: {result['protocol']}; {options.networks} networks each")
    print("| steps | Retort, % | sd | error of mean | PyTorch, % | sd | error of mean | difference | in errors |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for c, row in enumerate(ours["by_step"]):
        a, b = summary(row["runs"]), summary([run[c] for run in runs])
        error = math.hypot(a[2], b[2])
        print(f"| {row['step']} | " + " | ".join(f"{x:.2f}" for x in (*a, *b)) +
              f" | {a[0] - b[0]:+.2f} | {(a[0] - b[0]) / error:+.1f} |")
        if row["step"] == ours["step"]:
            agreed = abs(a[0] - b[0]) <= 2 * error
    print(f"{'ok    ' if agreed else 'FAILED'}  {options.name}: PyTorch {torch.__version__} beside retort eval at step "
          f"{ours['step']}")
    sys.exit(not agreed)


main()
