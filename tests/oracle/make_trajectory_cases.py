#!/usr/bin/env python3
"""Makes the case trajectory-instance of this folder: losses of trajectory matching with their derivatives.

    python3 -m venv build/venv && build/venv/bin/pip install jax && build/venv/bin/python tests/oracle/make_trajectory_cases.py

The answers come from JAX in double precision; the network is that of make_cases.py. From theta_0 = start, J steps

    g_t = d/dtheta mean cross-entropy of all images S,   theta_{t+1} = theta_t - alpha g_t
    L = |m (theta_J - target)|^2 / |m (start - target)|^2

    mtt        m = 1, and dL/dS, dL/dalpha through all steps
    tesla      m = 1, as released: with lambda = dL/dtheta_J, dS = -alpha sum over t of (dg_t/dS)^T lambda at constant
               theta_t, and -<lambda, sum of g_t> for alpha
    ratio      mtt with m 0 where min(|a|, |b|) / max(|a|, |b|), 0 for opposite signs, is below epsilon; a of theta_J, b
               of the target; m constant                                                        (DDPP, one reading)
    distance   mtt with m 0 where |a - b| / |b - start| is above epsilon; m constant                    (another one)

The folder holds

    case.yaml                float32_error of each loss, derivative by alpha and by S, by the same computation in float32
    start.npy, target.npy    float32 [p], the order of host/nn/nn.h
    syn_x.npy                float32 [K*S,C,H,W], class by class
    expect_mtt.npy, ...      float64 [2 + K*S*C*H*W]: the loss, its derivative by alpha, then by syn_x
    single_mtt.npy, ...      the same by float32: how far off single precision is
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from make_cases import convnet, cross_entropy, initial_theta, logits

CASE = dict(
    about="losses of trajectories; instance norm, swish, not square",
    image=[2, 8, 7], classes=3, synthetic=2, steps=3, alpha=0.2, epsilon=0.9,
    network=convnet(2, 5, "instance", "swish"))


def labels(x):
    return jax.nn.one_hot(jnp.repeat(jnp.arange(CASE["classes"]), CASE["synthetic"]), CASE["classes"], dtype=x.dtype)


def gradient(theta, x):
    return jax.grad(lambda t: cross_entropy(logits(CASE, t, x), labels(x)))(theta)


def train(start, alpha, x):
    thetas = [start]
    for _ in range(CASE["steps"]):
        thetas.append(thetas[-1] - alpha * gradient(thetas[-1], x))
    return thetas


def loss(theta, data, mask):
    return (mask * (theta - data["target"]) ** 2).sum() / (mask * (data["start"] - data["target"]) ** 2).sum()


def through_all_steps(data, alpha, mask):
    value, (by_alpha, by_x) = jax.value_and_grad(
        lambda a, x: loss(train(data["start"], a, x)[-1], data, mask), argnums=(0, 1))(alpha, data["syn_x"])
    return value, by_alpha, by_x


def without_second_derivatives(data, alpha, mask):
    x, by_x, by_alpha = data["syn_x"], 0, 0
    thetas = train(data["start"], alpha, x)
    value, pull = jax.value_and_grad(loss)(thetas[-1], data, mask)
    for theta in thetas[:-1]:
        g, transpose = jax.vjp(lambda images, at=theta: gradient(at, images), x)
        by_x -= alpha * transpose(pull)[0]
        by_alpha -= pull @ g
    return value, by_alpha, by_x


def unlike(reading, theta, data):
    """What is dropped where it is above 0."""
    target, epsilon = data["target"], CASE["epsilon"]
    if reading == "ratio":
        small, large = jnp.minimum(abs(theta), abs(target)), jnp.maximum(abs(theta), abs(target))
        return epsilon - jnp.where((theta < 0) != (target < 0), 0, small / large)
    return abs(theta - target) / abs(target - data["start"]) - epsilon


def solve(data):
    alpha = jnp.asarray(CASE["alpha"], data["start"].dtype)
    student, ones = train(data["start"], alpha, data["syn_x"])[-1], jnp.ones_like(data["start"])
    answers = {"mtt": through_all_steps(data, alpha, ones), "tesla": without_second_derivatives(data, alpha, ones)}
    for reading in ("ratio", "distance"):
        verge = unlike(reading, student, data)
        mask = (verge <= 0).astype(ones.dtype)
        print(f"{reading}: keeps {int(mask.sum())} of {len(mask)}; the nearest to the verge by {abs(verge).min():.1e}")
        assert abs(verge).min() > 1e-5, "a parameter is on the verge: take another seed"
        answers[reading] = through_all_steps(data, alpha, mask)
    return {name: np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])
            for name, parts in answers.items()}


def errors(value, single):
    off = abs(single - value)
    return off[0] / abs(value[0]), off[1] / abs(value[1]), off[2:].max() / abs(value[2:]).max()


def main():
    random = np.random.default_rng(2)
    start = initial_theta(CASE, random)
    data = dict(
        start=start, target=start + 0.05 * random.normal(size=start.shape),
        syn_x=random.normal(size=(CASE["classes"] * CASE["synthetic"], *CASE["image"])))
    data = {name: value.astype(np.float32) for name, value in data.items()}
    exact, single = (solve({name: jnp.asarray(value, dtype) for name, value in data.items()})
                     for dtype in (jnp.float64, jnp.float32))
    folder = pathlib.Path(__file__).parent / "trajectory-instance"
    folder.mkdir(exist_ok=True)
    for name, value in data.items():
        np.save(folder / f"{name}.npy", value)
    lines = [f"# {CASE['about']}"]
    lines += [f"{key}: {CASE[key]}" for key in ("image", "classes", "synthetic", "steps", "alpha", "epsilon")]
    lines += ["network:"] + [f"  {key}: {value}" for key, value in CASE["network"].items()] + ["float32_error:"]
    for name, value in exact.items():
        np.save(folder / f"expect_{name}.npy", value)
        np.save(folder / f"single_{name}.npy", single[name].astype(np.float32))
        error = errors(value, single[name])
        lines += [f"  {name}: [{', '.join(f'{e:.1e}' for e in error)}]"]
        print(f"{name}: loss {value[0]:.6g}, float32's is {error[0]:.1e} off, by alpha {error[1]:.1e}, by S {error[2]:.1e}")
    (folder / "case.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
