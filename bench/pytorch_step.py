#!/usr/bin/env python3
"""The outer step of `retort bench step`, in PyTorch: what Retort is compared with.

ConvNet-3 with affine instance norm, ReLU and average pooling; 10 classes; the inner batch is the whole synthetic set;
Adam with learning rate 1e-3; PREFIX plain steps, WINDOW differentiated ones, the meta-loss on REAL images, and its
gradient by the synthetic images. Two variants:

  graph     autograd records the whole window (create_graph) and goes back through it: how such code is usually written
  compiled  the window is replayed step by step. Each step's adjoint is one forward-over-reverse derivative (a jvp of a
            grad) under torch.compile; images and weights in channels_last

Prints one JSON object. Both variants compute the same gradient, up to rounding; `gradient_norm` shows it."""
import argparse
import json
import resource
import statistics
import time

import torch
from torch.nn import functional as F

CLASSES, DEPTH = 10, 3
RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=["graph", "compiled"])
    parser.add_argument("--image", default="1,28,28", help="C,H,W")
    for name, value in dict(ipc=1, prefix=20, window=20, real=256, width=32, reps=5, threads=2).items():
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU that PyTorch knows")
    parser.add_argument("--tf32", action="store_true", help="cuda: let matrix units round the products' operands to TF32")
    return parser.parse_args()


def initial_weights(channels, side_after, width, generator):
    """Per block: weight, bias, gamma, beta; then weight and bias of the head."""
    weights, inputs = [], channels
    for _ in range(DEPTH):
        weights.append(torch.randn(width, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5)
        weights += [torch.zeros(width), torch.ones(width), torch.zeros(width)]
        inputs = width
    features = width * side_after[0] * side_after[1]
    weights.append(torch.randn(CLASSES, features, generator=generator) / features**0.5)
    weights.append(torch.zeros(CLASSES))
    return weights


def group_norm(x, gamma, beta):
    return F.group_norm(x, gamma.numel(), gamma, beta)


def written_out_norm(x, gamma, beta):
    """The same in elementary operations, which the compiler fuses with what stands around them."""
    centred = x - x.mean((2, 3), keepdim=True)
    scale = torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + 1e-5)
    return centred * (scale * gamma[:, None, None]) + beta[:, None, None]


def loss_of(weights, images, labels, norm, activation=F.relu):
    x = images
    for weight, bias, gamma, beta in zip(*[iter(weights[:-2])] * 4):
        x = F.avg_pool2d(activation(norm(F.conv2d(x, weight, bias, padding=1), gamma, beta)), 2)
    return F.cross_entropy(F.linear(x.flatten(1), weights[-2], weights[-1]), labels)


def corrections(step):
    return 1 / (1 - BETA1**step), 1 / (1 - BETA2**step)


class Graph:
    def __init__(self, weights, images, labels, real, real_labels):
        self.weights, self.labels, self.real, self.real_labels = weights, labels, real, real_labels
        self.images = images.requires_grad_()

    def update(self, weights, moments, images, step, keep):
        """One Adam step; differentiable where its graph is to be kept."""
        gradient = torch.autograd.grad(loss_of(weights, images, self.labels, group_norm), weights, create_graph=keep)
        c1, c2 = corrections(step)
        new_weights, new_moments = [], []
        for w, g, (m, v) in zip(weights, gradient, moments):
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
            # The root's derivative at zero is infinite; a number far below what Adam divides by keeps it finite.
            new_weights.append(w - RATE * c1 * m / ((c2 * v + 1e-16).sqrt() + EPS))
            new_moments.append((m, v))
        return new_weights, new_moments

    def outer_step(self, prefix, window):
        weights = [w.detach().requires_grad_() for w in self.weights]
        moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
        for step in range(1, prefix + 1):
            weights, moments = self.update(weights, moments, self.images.detach(), step, False)
            weights = [w.detach().requires_grad_() for w in weights]
            moments = [(m.detach(), v.detach()) for m, v in moments]
        for step in range(prefix + 1, prefix + window + 1):
            weights, moments = self.update(weights, moments, self.images, step, True)
        return torch.autograd.grad(loss_of(weights, self.real, self.real_labels, group_norm), self.images)[0]


class Compiled:
    def __init__(self, weights, images, labels, real, real_labels):
        def last(t):
            return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t

        self.weights, self.images = [last(w) for w in weights], last(images)
        real = last(real)

        def loss(weights, images):
            return loss_of(weights, images, labels, written_out_norm)

        @torch.compile
        def forward(weights, m, v, c1, c2):
            gradient = torch.func.grad(loss)(weights, self.images)
            m = [BETA1 * a + (1 - BETA1) * g for a, g in zip(m, gradient)]
            v = [BETA2 * b + (1 - BETA2) * g * g for b, g in zip(v, gradient)]
            weights = [w - RATE * (c1 * a) / ((c2 * b).sqrt() + EPS) for w, a, b in zip(weights, m, v)]
            return weights, m, v, gradient

        @torch.compile
        def backward(weights, gradient, m, v, adjoint, adjoint_m, adjoint_v, adjoint_images, c1, c2):
            """Takes one step back: m and v are those after it, the rest of the state is that before it."""
            by_gradient, by_m, by_v = [], [], []
            for g, a, b, l, lm, lv in zip(gradient, m, v, adjoint, adjoint_m, adjoint_v):
                root = (c2 * b).sqrt()
                lm = lm - RATE * c1 * l / (root + EPS)
                through_root = RATE * c1 * a * l * c2 / (2 * root * (root + EPS).square())
                lv = lv + torch.where(b > 0, through_root, 0.0)
                by_gradient.append((1 - BETA1) * lm + 2 * (1 - BETA2) * g * lv)
                by_m.append(BETA1 * lm)
                by_v.append(BETA2 * lv)
            derivative = torch.func.grad(loss, argnums=(0, 1))
            _, (by_weights, by_images) = torch.func.jvp(
                lambda w: derivative(w, self.images), (weights,), (by_gradient,))
            return [l + h for l, h in zip(adjoint, by_weights)], by_m, by_v, adjoint_images + by_images

        @torch.compile
        def meta(weights):
            return torch.func.grad(lambda w: loss_of(w, real, real_labels, written_out_norm))(weights)

        self.forward, self.backward, self.meta = forward, backward, meta

    def outer_step(self, prefix, window):
        weights, steps, tape = self.weights, prefix + window, []
        m = v = [torch.zeros_like(w) for w in weights]
        # As tensors: numbers would be compiled in.
        scales = [[torch.tensor(c) for c in corrections(step)] for step in range(1, steps + 1)]
        for step in range(steps):
            before = weights
            weights, m, v, gradient = self.forward(weights, m, v, *scales[step])
            if step >= prefix:
                tape.append((before, gradient, m, v))
        adjoint = self.meta(weights)
        adjoint_m = adjoint_v = [torch.zeros_like(w) for w in weights]
        adjoint_images = torch.zeros_like(self.images)
        for step in reversed(range(prefix, steps)):
            adjoint, adjoint_m, adjoint_v, adjoint_images = self.backward(
                *tape.pop(), adjoint, adjoint_m, adjoint_v, adjoint_images, *scales[step])
        return adjoint_images


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    channels, height, width = map(int, options.image.split(","))
    generator = torch.Generator().manual_seed(1)
    weights = initial_weights(channels, (height // 2**DEPTH, width // 2**DEPTH), options.width, generator)
    images = torch.randn(CLASSES * options.ipc, channels, height, width, generator=generator)
    real = torch.randn(options.real, channels, height, width, generator=generator)
    # Drawn on the host, so that every device computes the same thing.
    torch.set_default_device(options.device)
    weights = [w.to(options.device) for w in weights]
    images, real = images.to(options.device), real.to(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    labels, real_labels = torch.arange(len(images)) % CLASSES, torch.arange(len(real)) % CLASSES
    variant = dict(graph=Graph, compiled=Compiled)[options.variant](weights, images, labels, real, real_labels)
    seconds = []
    for _ in range(1 + options.reps):
        begun = time.perf_counter()
        norm = float(variant.outer_step(options.prefix, options.window).norm())
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(dict(
        vars(options), version=torch.__version__, first_seconds=seconds[0], seconds_min=min(seconds[1:]),
        seconds_median=statistics.median(seconds[1:]), gradient_norm=norm,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))


if __name__ == "__main__":
    main()
