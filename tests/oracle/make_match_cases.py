#!/usr/bin/env python3
"""Makes the case match-instance of this folder: losses of gradients with their exact derivatives by the images.

    python3 -m venv build/venv && build/venv/bin/pip install jax && build/venv/bin/python tests/oracle/make_match_cases.py

The answers come from JAX in double precision, by plain reverse differentiation of a gradient; the network is that of
make_cases.py, the augmentation that of make_dm_cases.py. g_c and h_c are the gradients by theta of the mean
cross-entropy on the real and on the synthetic images of class c, under one augmentation of both, and

    cosine(g, h)  sum over weights of rank > 1, over output rows, of 1 - <g,h> / (|g| |h| + 1e-6)
    norm(g, h)    the same sum of that and |g - h|
    dc            sum over c of cosine(g_c, h_c)                                   (DC, DSA)
    dcc           cosine(mean of g_c, mean of h_c)                                 (DCC, DSAC)
    egm           sum over c of norm(g_c, h_c) + K norm(mean of g_c, mean of h_c)  (EGM)
    squared       sum over c, over weights of convolutions, of (g_c - h_c)^2       (IDC)
    absolute      likewise of |g_c - h_c|
    tiles         squared, the synthetic images being tiles of stored ones: each of F x F in every class's stored image,
                  enlarged bilinearly and normalised; its derivative is by what is stored                (IDC, factor F)

The folder holds

    case.yaml               image [C,H,W], classes K, real R, synthetic S, network; float32_error of each loss and of its
                            derivative, by the same computation in float32
    theta0.npy              float32 [p], the order of host/nn/nn.h
    real_x.npy, syn_x.npy   float32 [K*R,C,H,W], [K*S,C,H,W], class by class
    stored_x.npy            float32 [K,C,H,W] in [0,1]
    maps.npy, colour.npy    float32 [K,2,3], [K,8]: of each class
    expect_dc.npy, ...      float64 [1 + K*S*C*H*W]: the loss, then its derivative by syn_x, or [1 + K*C*H*W] by stored_x
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from make_cases import convnet, cross_entropy, initial_theta, layout, logits
from make_dm_cases import augment, parameters

CASE = dict(
    about="losses of gradients; instance norm, swish, not square",
    image=[2, 8, 7], classes=3, real=6, synthetic=3, factor=2, mean=[0.3, -0.2], sd=[0.25, 0.5],
    network=convnet(2, 5, "instance", "swish"))
FAMILIES = ["colour", "cutout", "rotate"]


def class_gradients(data, x):
    """g or h of all classes, [K,p]."""
    classes = CASE["classes"]
    each = len(x) // classes

    def gradient(c):
        part = slice(c * each, (c + 1) * each)
        changed = augment(x[part], jnp.repeat(data["maps"][c:c + 1], each, 0), jnp.repeat(data["colour"][c:c + 1], each, 0))
        y = jax.nn.one_hot(jnp.full(each, c), classes, dtype=x.dtype)
        return jax.grad(lambda theta: cross_entropy(logits(CASE, theta, changed), y))(data["theta0"])

    return jnp.stack([gradient(c) for c in range(classes)])


def weights(vector):
    """Weights of rank > 1 as [rows, size], and whether each is a convolution's."""
    at = 0
    for shape, _ in layout(CASE):
        count = int(np.prod(shape))
        if len(shape) > 1:
            yield vector[at:at + count].reshape(shape[0], -1), len(shape) == 4
        at += count


def cosine(g, h, with_norm=False):
    total = 0
    for (x, _), (y, _) in zip(weights(g), weights(h)):
        lengths = jnp.sqrt((x * x).sum(1)) * jnp.sqrt((y * y).sum(1))
        row = 1 - (x * y).sum(1) / (lengths + 1e-6)
        if with_norm:
            row = row + jnp.sqrt(((x - y) ** 2).sum(1))
        total += row.sum()
    return total


def convolutions(g, h, power):
    return sum((abs(x - y) ** power).sum() for (x, conv), (y, _) in zip(weights(g), weights(h)) if conv)


def decode(stored):
    """[K,C,H,W] -> [K*F*F,C,H,W]: tiles of ceil(H / F) rows, the last of which ends with the image."""
    factor, (_, height, width) = CASE["factor"], CASE["image"]
    h, w = -(-height // factor), -(-width // factor)
    mean, sd = (jnp.asarray(CASE[key], stored.dtype).reshape(1, -1, 1, 1) for key in ("mean", "sd"))
    tiles = [jax.image.resize(stored[:, :, top:top + h, left:left + w], stored.shape, "linear", antialias=False)
             for top in (0, height - h) for left in (0, width - w)]
    return (jnp.stack(tiles, 1).reshape(-1, *stored.shape[1:]) - mean) / sd


LOSSES = {
    "dc": lambda g, h: sum(cosine(*pair) for pair in zip(g, h)),
    "dcc": lambda g, h: cosine(g.mean(0), h.mean(0)),
    "egm": lambda g, h: sum(cosine(*pair, True) for pair in zip(g, h)) + len(g) * cosine(g.mean(0), h.mean(0), True),
    "squared": lambda g, h: sum(convolutions(*pair, 2) for pair in zip(g, h)),
    "absolute": lambda g, h: sum(convolutions(*pair, 1) for pair in zip(g, h)),
}


def solve(data):
    g = class_gradients(data, data["real_x"])
    answers = {}
    for name, loss in LOSSES.items():
        value, gradient = jax.value_and_grad(lambda x: loss(g, class_gradients(data, x)))(data["syn_x"])
        answers[name] = np.concatenate([[float(value)], np.asarray(gradient, np.float64).ravel()])
    value, gradient = jax.value_and_grad(
        lambda x: LOSSES["squared"](g, class_gradients(data, decode(x))))(data["stored_x"])
    answers["tiles"] = np.concatenate([[float(value)], np.asarray(gradient, np.float64).ravel()])
    return answers


def main():
    random = np.random.default_rng(1)
    classes, (_, height, width) = CASE["classes"], CASE["image"]
    maps, colour = zip(*(parameters(family, height, width) for family in FAMILIES))
    data = dict(
        theta0=initial_theta(CASE, random), real_x=random.normal(size=(classes * CASE["real"], *CASE["image"])),
        syn_x=random.normal(size=(classes * CASE["synthetic"], *CASE["image"])), maps=np.stack(maps),
        colour=np.stack(colour), stored_x=random.uniform(size=(classes, *CASE["image"])))
    data = {name: value.astype(np.float32) for name, value in data.items()}
    exact, single = (solve({name: jnp.asarray(value, dtype) for name, value in data.items()})
                     for dtype in (jnp.float64, jnp.float32))
    folder = pathlib.Path(__file__).parent / "match-instance"
    folder.mkdir(exist_ok=True)
    for name, value in data.items():
        np.save(folder / f"{name}.npy", value)
    lines = [f"# {CASE['about']}"] + [f"{key}: {CASE[key]}" for key in ("image", "classes", "real", "synthetic", "factor", "mean", "sd")]
    lines += ["network:"] + [f"  {key}: {value}" for key, value in CASE["network"].items()] + ["float32_error:"]
    for name, value in exact.items():
        np.save(folder / f"expect_{name}.npy", value)
        off = abs(single[name] - value)
        error = off[0] / abs(value[0]), off[1:].max() / abs(value[1:]).max()
        lines += [f"  {name}: [{error[0]:.1e}, {error[1]:.1e}]"]
        print(f"{name}: loss {value[0]:.6g}, float32's is {error[0]:.1e} off, its derivative {error[1]:.1e}")
    (folder / "case.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
