#!/usr/bin/env python3
"""A match of gradients (DC) and a step of trajectory matching (MTT), in PyTorch: what Retort is compared with.

    bench/pytorch_match.py check                            against the cases of tests/oracle/
    bench/pytorch_match.py data FOLDER --image 3,32,32      random images, for both programs: 256 of each class
    bench/pytorch_match.py dc FOLDER --image 3,32,32 --width 128 --ipc 10
    bench/pytorch_match.py mtt FOLDER --image 1,28,28 --width 32 --experts FOLDER --variant compiled

`check` computes loss and derivatives of both variants, in double precision, for what tests/oracle/match-instance and
trajectory-instance hold, and says how far off they are; those are the cases that Retort's tests compare it with.

The networks are those of bench/pytorch_step.py. DC: with g and h the gradients by the weights on all 256 real and on
the synthetic images of a class, the loss is the sum over classes, over weights of rank > 1, over output rows, of
1 - <g,h> / (|g| |h| + 1e-6); its gradient by the synthetic images of all classes. MTT: 30 steps of gradient descent on
all synthetic images, from an expert's first weights; the loss is the squared distance to the expert's second epoch,
over that from where it began; its exact gradient by images and rate. No augmentation. Variants:

  graph     autograd records everything (create_graph) and goes back through it once, all classes of DC and all steps
            of MTT in one graph: how such code is usually written
  compiled  under torch.compile, in channels_last: class by class the derivative by the images of the distance of a
            gradient (a grad in a grad, of torch.func); the steps of MTT replayed, the adjoint of each one
            forward-over-reverse derivative (a jvp of a grad), so that nothing is kept of a step but its weights

With PyTorch 2.15 the variant graph cannot be compiled as it is usually written: where the loss is under torch.compile,
the second derivative ends in "torch.compile with aot_autograd does not currently support double backward". So here all
derivatives stand inside of what is compiled, by torch.func; torch.autograd.grad may stand there, too, under
torch._dynamo.config.trace_autograd_ops, which leads to the same graph.

Prints one JSON object: seconds, the loss and the norm of the gradient, by which Retort's are compared, and the most
memory that the process held, whole and beyond what it held after `import torch`."""
import argparse
import json
import pathlib
import resource
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from pytorch_step import CLASSES, DEPTH, group_norm, loss_of, written_out_norm

REAL, STEPS, ALPHA, EPOCHS = 256, 30, 0.01, 2
ORACLE = pathlib.Path(__file__).parent.parent / "tests" / "oracle"


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def distance(g, h):
    total = 0
    for x, y in zip(g, h):
        if x.dim() > 1:
            x, y = x.flatten(1), y.flatten(1)
            lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
            total = total + (1 - (x * y).sum(1) / (lengths + 1e-6)).sum()
    return total


def last(t):
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


class DcGraph:
    """real: a list of batches, one of each class; images: the synthetic ones of all classes, class by class."""

    def __init__(self, real, images, activation=F.relu, prepare=lambda x, label: x):
        self.real, self.images, self.activation, self.prepare = real, images, activation, prepare

    def step(self, weights):
        total, images = 0, self.images.detach().requires_grad_()
        weights = [w.detach().requires_grad_() for w in weights]
        for label, (real, own) in enumerate(zip(self.real, images.chunk(len(self.real)))):
            g, h = (torch.autograd.grad(self.loss(weights, x, label), weights, create_graph=kept)
                    for x, kept in ((real, False), (own, True)))
            total = total + distance(g, h)
        return total.detach(), torch.autograd.grad(total, images)

    def loss(self, weights, x, label):
        labels = torch.full((len(x),), label)
        return loss_of(weights, self.prepare(x, label), labels, group_norm, self.activation)


class DcCompiled:
    def __init__(self, real, images, activation=F.relu, prepare=lambda x, label: x, compiler=torch.compile):
        self.real, self.images = [last(x) for x in real], [last(x) for x in images.chunk(len(real))]

        def loss(weights, x, labels, label):
            return loss_of(weights, prepare(x, label), labels, written_out_norm, activation)

        @compiler
        def real_gradient(weights, x, labels, label):
            return torch.func.grad(loss)(weights, x, labels, label)

        @compiler
        def match(weights, g, x, labels, label):
            return torch.func.grad_and_value(
                lambda own: distance(g, torch.func.grad(loss)(weights, own, labels, label)))(x)

        self.real_gradient, self.match = real_gradient, match

    def step(self, weights):
        weights, total, gradients = [last(w) for w in weights], 0, []
        for label, (real, own) in enumerate(zip(self.real, self.images)):
            # As a tensor: a number would be compiled in. Only `check` prepares images by their label.
            label = torch.tensor(label)
            g = self.real_gradient(weights, real, label.expand(len(real)), label)
            gradient, value = self.match(weights, g, own, label.expand(len(own)), label)
            total, gradients = total + value, gradients + [gradient]
        return total, [torch.cat(gradients)]


def expert_loss(weights, start, target):
    off, way = (sum((a - b).square().sum() for a, b in zip(x, target)) for x in (weights, start))
    return off / way


class MttGraph:
    def __init__(self, target, images, labels, steps, activation=F.relu):
        self.target, self.images, self.labels, self.steps, self.activation = target, images, labels, steps, activation

    def step(self, start, alpha):
        images, alpha = self.images.detach().requires_grad_(), alpha.detach().requires_grad_()
        weights = [w.detach().requires_grad_() for w in start]
        for _ in range(self.steps):
            loss = loss_of(weights, images, self.labels, group_norm, self.activation)
            weights = [w - alpha * g for w, g in zip(weights, torch.autograd.grad(loss, weights, create_graph=True))]
        loss = expert_loss(weights, start, self.target)
        return loss.detach(), torch.autograd.grad(loss, (images, alpha))


class MttCompiled:
    def __init__(self, target, images, labels, steps, activation=F.relu, compiler=torch.compile):
        self.target, self.images, self.steps = [last(w) for w in target], last(images), steps

        def loss(weights, images):
            return loss_of(weights, images, labels, written_out_norm, activation)

        @compiler
        def forward(weights, images, alpha):
            return [w - alpha * g for w, g in zip(weights, torch.func.grad(loss)(weights, images))]

        @compiler
        def backward(weights, adjoint, images, by_images, by_alpha, alpha):
            derivative = torch.func.grad(loss, argnums=(0, 1))
            (g, _), (by_weights, mixed) = torch.func.jvp(lambda w: derivative(w, images), (weights,), (adjoint,))
            by_alpha = by_alpha - sum((l * x).sum() for l, x in zip(adjoint, g))
            return [l - alpha * h for l, h in zip(adjoint, by_weights)], by_images - alpha * mixed, by_alpha

        @compiler
        def end(weights, start, target):
            return torch.func.grad_and_value(expert_loss)(weights, start, target)

        self.forward, self.backward, self.end = forward, backward, end

    def step(self, start, alpha):
        start, tape = [last(w) for w in start], []
        weights = start
        for _ in range(self.steps):
            tape.append(weights)
            weights = self.forward(weights, self.images, alpha)
        adjoint, loss = self.end(weights, start, self.target)
        by_images, by_alpha = torch.zeros_like(self.images), torch.zeros_like(alpha)
        while tape:
            adjoint, by_images, by_alpha = self.backward(tape.pop(), adjoint, self.images, by_images, by_alpha, alpha)
        return loss, (by_images, by_alpha)


# --- check ---
def augment(x, map, colour):
    """All images x through one map [2,3] and one row of colour parameters, as host/base/augmentation.h defines them."""
    height, width = x.shape[2:]
    v, u = torch.meshgrid(torch.arange(height, dtype=x.dtype) - (height - 1) / 2,
                          torch.arange(width, dtype=x.dtype) - (width - 1) / 2, indexing="ij")
    place = torch.stack([u, v, torch.ones_like(u)], -1) @ map.T
    grid = place * 2 / torch.tensor([width - 1, height - 1], dtype=x.dtype)
    x = F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True)
    brightness, saturation, contrast, row, column, half_height, half_width = colour[:7]
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    i, j = torch.arange(height)[:, None], torch.arange(width)
    hole = ((i - row).abs() <= half_height) & ((j - column).abs() <= half_width) & (half_height > 0) & (half_width > 0)
    return torch.where(hole, 0, x)


def split(theta, width, depth, channels, classes):
    """A flat theta, in the order of host/nn/nn.h, as a list of weights."""
    shapes = []
    for _ in range(depth):
        shapes += [(width, channels, 3, 3), (width,), (width,), (width,)]
        channels = width
    features = (len(theta) - classes - sum(int(np.prod(s)) for s in shapes)) // classes
    shapes += [(classes, features), (classes,)]
    parts = theta.split([int(np.prod(s)) for s in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


def load(case, name):
    return torch.from_numpy(np.load(ORACLE / case / f"{name}.npy").astype(np.float64))


def compare(case, variant, answer, expected):
    off, expected = [], expected.split([part.numel() for part in answer])
    for got, right in zip(answer, expected):
        off.append(((got.flatten() - right).abs().max() / right.abs().max()).item())
    print(f"{case}, {variant.__name__}: loss {answer[0]:.9f}; off by, as shares of the largest value:",
          *map("{:.1e}".format, off))
    if not max(off) < 1e-9:
        raise SystemExit("PyTorch does not compute what Retort is tested to compute")


def check():
    """The answers of the cases are from JAX. Without compilation, which changes no more than rounding."""
    activation = F.silu
    classes, depth, width, channels, steps, alpha = 3, 2, 5, 2, 3, 0.2
    case = "match-instance"
    theta, real, images, maps, colour = (load(case, n) for n in ("theta0", "real_x", "syn_x", "maps", "colour"))
    weights = split(theta, width, depth, channels, classes)
    for variant, options in (DcGraph, {}), (DcCompiled, dict(compiler=lambda function: function)):
        problem = variant(
            real.chunk(classes), images, activation, lambda x, c: augment(x, maps[c], colour[c]), **options)
        loss, (by_images,) = problem.step(weights)
        compare(case, variant, (loss, by_images), load(case, "expect_dc"))
    case = "trajectory-instance"
    start, target = (split(load(case, name), width, depth, channels, classes) for name in ("start", "target"))
    images = load(case, "syn_x")
    labels = torch.arange(classes).repeat_interleave(len(images) // classes)
    for variant, options in (MttGraph, {}), (MttCompiled, dict(compiler=lambda function: function)):
        loss, (by_images, by_alpha) = variant(target, images, labels, steps, activation, **options).step(
            start, torch.tensor(alpha, dtype=torch.float64))
        compare(case, variant, (loss, by_alpha, by_images), load(case, "expect_mtt"))


# --- timing ---
def write_data(folder, image):
    """Uniform noise, class by class: both programs take its values as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    images = random.random((CLASSES * REAL, *image), dtype=np.float32)
    np.save(folder / "images.npy", images if image[0] > 1 else images[:, 0])
    np.save(folder / "labels.npy", np.repeat(np.arange(CLASSES), REAL))


def random_weights(width, image):
    """As Retort begins a network: weights and biases uniform, within one over the root of a weight's row."""
    generator, channels, weights = torch.Generator().manual_seed(1), image[0], []

    def add(shape):
        most = np.prod(shape[1:]) ** -0.5
        weights.extend((torch.rand(s, generator=generator) * 2 - 1) * most for s in (shape, shape[:1]))

    for _ in range(DEPTH):
        add((width, channels, 3, 3))
        weights.extend([torch.ones(width), torch.zeros(width)])
        channels = width
    add((CLASSES, width * (image[1] // 2**DEPTH) * (image[2] // 2**DEPTH)))
    return weights


def read_problem(options, image):
    """All real images, the synthetic ones (the first of each class), and what `experts` holds or random weights."""
    real = torch.from_numpy(np.load(options.folder / "images.npy")).reshape(CLASSES, REAL, *image)
    images = real[:, :options.ipc].flatten(0, 1).clone()
    if options.what == "dc":
        return real, images, random_weights(options.width, image), None
    values = np.fromfile(options.experts / "expert-00000.theta", np.float32)
    epochs = json.loads((options.experts / "experts.json").read_text())["training"]["epochs"]
    # Behind the weights stands a hash of each epoch's, two floats long.
    thetas = torch.from_numpy(values[:-2 * (epochs + 1)]).reshape(epochs + 1, -1)
    start, target = (split(thetas[epoch], options.width, DEPTH, image[0], CLASSES) for epoch in (0, EPOCHS))
    return None, images, start, target


def measure(options, image, after_import):
    torch.set_num_threads(options.threads)
    real, images, weights, target = read_problem(options, image)
    if options.what == "dc":
        problem = dict(graph=DcGraph, compiled=DcCompiled)[options.variant](list(real), images)
        step = lambda: problem.step(weights)
    else:
        labels = torch.arange(CLASSES).repeat_interleave(options.ipc)
        problem = dict(graph=MttGraph, compiled=MttCompiled)[options.variant](target, images, labels, STEPS)
        step = lambda: problem.step(weights, torch.tensor(ALPHA))
    seconds = []
    for _ in range(1 + options.reps):
        begun = time.perf_counter()
        loss, gradient = step()
        norm = float(gradient[0].norm())
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(dict(
        version=torch.__version__, threads=options.threads, first_seconds=seconds[0], seconds=seconds[1:],
        seconds_median=statistics.median(seconds[1:]), loss=float(loss), gradient_norm=norm,
        peak_rss_mb=peak_mb(), above_import_mb=peak_mb() - after_import)))


def main():
    after_import = peak_mb()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "data", "dc", "mtt"])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--variant", choices=["graph", "compiled"], default="graph")
    parser.add_argument("--image", default="3,32,32", help="C,H,W")
    parser.add_argument("--experts", type=pathlib.Path, help="mtt: the folder that `retort experts` filled")
    for name, value in dict(ipc=1, width=128, reps=3, threads=2).items():
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    image = tuple(map(int, options.image.split(",")))
    if options.what == "check":
        check()
    elif options.what == "data":
        write_data(options.folder, image)
    else:
        measure(options, image, after_import)


if __name__ == "__main__":
    main()
