#!/usr/bin/env python3
"""Makes the cases dm-* of this folder: distribution matching (Zhao and Bilen, WACV 2023) with its exact gradient.

    python3 -m venv build/venv && build/venv/bin/pip install jax && build/venv/bin/python tests/oracle/make_dm_cases.py

The answers come from JAX in double precision; the network is that of make_cases.py. With K classes, R real and S
synthetic images of each,

    L = sum over classes c of |mean of phi(A_c x) over the real x of c - mean of phi(A_c s) over the synthetic s of c|^2

where phi is the network without its head, its last values (pooling included) flattened channel by channel, and A_c the
differentiable Siamese augmentation of class c, the same for its real and synthetic images: first the image is sampled
bilinearly through an affine map, zeros around it, then it gets brightness, saturation, contrast and cutout, by the
definitions of host/graph/graph.h (node_sample) and host/base/augmentation.h. There are six classes, and class c has the
family FAMILIES[c] of host/data/data.h, so that all are there; what a family leaves alone is the identity.

Batch norm standardises by the statistics of the batch at hand: here all real images of all classes are one batch, and
all synthetic images are another. Under instance norm images do not see each other, and any parts do.

A folder holds

    case.yaml               image [C,H,W], classes K, real R, synthetic S, network: as in the other cases; float32_error:
                            and tolerance: of loss and dsyn_x
    theta0.npy              float32 [p], the order of host/nn/nn.h, with the head (K rows), which L does not read
    real_x.npy              float32 [K*R,C,H,W], class by class
    syn_x.npy               float32 [K*S,C,H,W], class by class
    maps.npy                float32 [K,2,3], one row for each class
    colour.npy              float32 [K,8], likewise
    expect_loss.npy         float64 [1], L
    expect_dsyn_x.npy       float64 [K*S,C,H,W], dL / d syn_x

Errors are max |got - expected| / max |expected|. float32_error is that of the same computation by JAX in float32 (at
least 2^-23: a single number may be right by luck), tolerance is 30 times it. No value that a ReLU reads from a synthetic
or real image is nearer to zero than KINK.
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from make_cases import convnet, features, initial_theta

KINK = 1e-4
FAMILIES = ["colour", "crop", "cutout", "scale", "rotate", "flip"]

CASES = {
    "dm-instance": dict(
        about="distribution matching; instance norm, ReLU, not square",
        image=[3, 8, 6], classes=6, real=4, synthetic=2, network=convnet(2, 6, "instance", "relu")),
    "dm-batch": dict(
        about="distribution matching; batch norm over all classes, swish, odd sizes, more channels than 4",
        image=[2, 7, 9], classes=6, real=3, synthetic=2, network=convnet(2, 5, "batch", "swish")),
}


def parameters(family, height, width):
    """One map and one row of colour parameters: plain numbers, inside the ranges that are drawn."""
    affine, colour = np.eye(2, 3), np.array([0, 1, 1, 0, 0, -1, -1, 0], float)
    if family == "colour":
        colour[:3] = 0.31, 1.62, 0.74
    elif family == "crop":
        affine[:, 2] = -1, 1
    elif family == "cutout":
        rows, columns = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
        colour[3:7] = 1 + (rows - 1) / 2, width - columns + 1 + (columns - 1) / 2, rows / 2, columns / 2
    elif family == "scale":
        affine[0, 0], affine[1, 1] = 1.13, 0.87
    elif family == "rotate":
        angle = np.deg2rad(-11)
        affine[:, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    elif family == "flip":
        affine[0, 0] = -1
    return affine, colour


def sample(x, maps):
    """x [N,C,H,W] read through maps [N,2,3]; columns first, centred on the middle of the image."""
    height, width = x.shape[2:]
    v, u = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    grid = jnp.stack([u, v, jnp.ones_like(u)]).astype(x.dtype)
    place = jnp.einsum("nij,jhw->nihw", maps, grid)
    column, row = place[:, 0] + (width - 1) / 2, place[:, 1] + (height - 1) / 2
    left, top = jnp.floor(column), jnp.floor(row)
    image = jnp.arange(len(x))[:, None, None]
    result = jnp.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            i, j = top + down, left + right
            weight = (1 - abs(row - i)) * (1 - abs(column - j))
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            rows, columns = (jnp.clip(k, 0, size - 1).astype(int) for k, size in ((i, height), (j, width)))
            values = jnp.moveaxis(x[image, :, rows, columns], -1, 1)
            result += values * jnp.where(inside, weight, 0)[:, None]
    return result


def augment(x, maps, colour):
    x = sample(x, maps)
    brightness, saturation, contrast, row, column, half_height, half_width = colour.T[:7, :, None, None, None]
    x = x + brightness
    grey = x.mean(1, keepdims=True)
    x = (x - grey) * saturation + grey
    mean = x.mean((1, 2, 3), keepdims=True)
    x = (x - mean) * contrast + mean
    i, j = jnp.arange(x.shape[2])[:, None], jnp.arange(x.shape[3])
    hole = (abs(i - row) <= half_height) & (abs(j - column) <= half_width) & (half_height > 0) & (half_width > 0)
    return jnp.where(hole, 0, x)


def means(case, data, x, before_activation=lambda x: None):
    """The mean features of each class, [K,F]."""
    each = len(x) // case["classes"]
    changed = augment(x, jnp.repeat(data["maps"], each, 0), jnp.repeat(data["colour"], each, 0))
    phi = features(case, data["theta0"], changed, before_activation)
    return phi.reshape(case["classes"], each, -1).mean(1)


def solve(case, data):
    real = means(case, data, data["real_x"])
    loss, gradient = jax.value_and_grad(lambda x: ((real - means(case, data, x)) ** 2).sum())(data["syn_x"])
    return dict(loss=np.asarray(loss, np.float64)[None], dsyn_x=np.asarray(gradient, np.float64))


def nearest_kink(case, data):
    nearest = []
    for x in (data["real_x"], data["syn_x"]):
        means(case, data, x, lambda before: nearest.append(float(abs(before).min())))
    return min(nearest)


def problem(case, random):
    classes, (_, height, width) = case["classes"], case["image"]
    maps, colour = zip(*(parameters(family, height, width) for family in FAMILIES))
    data = dict(
        theta0=initial_theta(case, random),
        real_x=random.normal(size=(classes * case["real"], *case["image"])),
        syn_x=random.normal(size=(classes * case["synthetic"], *case["image"])), maps=np.stack(maps),
        colour=np.stack(colour))
    return {name: value.astype(np.float32) for name, value in data.items()}


def write(folder, case, data, exact, error):
    folder.mkdir(exist_ok=True)
    for name, value in data.items():
        np.save(folder / f"{name}.npy", value)
    for name, value in exact.items():
        np.save(folder / f"expect_{name}.npy", value)
    lines = [f"# {case['about']}"]
    lines += [f"{key}: {case[key]}" for key in ("image", "classes", "real", "synthetic")] + ["network:"]
    lines += [f"  {key}: {value}" for key, value in case["network"].items()] + ["float32_error:"]
    lines += [f"  {name}: {value:.1e}" for name, value in error.items()] + ["tolerance:"]
    lines += [f"  {name}: {30 * value:.1e}" for name, value in error.items()]
    (folder / "case.yaml").write_text("\n".join(lines) + "\n")


def main():
    for name, case in CASES.items():
        cast = lambda data, dtype: {key: jnp.asarray(value, dtype) for key, value in data.items()}
        for seed in range(100):
            data = problem(case, np.random.default_rng(seed))
            if case["network"]["activation"] != "relu" or nearest_kink(case, cast(data, jnp.float64)) > KINK:
                break
        else:
            raise SystemExit(f"{name}: every start has a value on a kink")
        exact, single = solve(case, cast(data, jnp.float64)), solve(case, cast(data, jnp.float32))
        error = {key: max(abs(single[key] - value).max() / abs(value).max(), 2.0**-23) for key, value in exact.items()}
        folder = pathlib.Path(__file__).parent / name
        write(folder, case, data, exact, error)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: start {seed}, {size / 1000:.1f} kB, loss {exact['loss'][0]:.6g},",
              ", ".join(f"float32's {key} {value:.1e} off" for key, value in error.items()))


if __name__ == "__main__":
    main()
