#!/usr/bin/env python3
"""Makes the cases trajectory-* of this folder: losses of trajectory matching with their derivatives.

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

A seed is taken for which no ReLU reads less than 1e-5, and no parameter is nearer than 1e-4 to being dropped or kept,
so that rounding decides nothing. A folder holds

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

from make_cases import convnet, cross_entropy, features, initial_theta, logits

CASES = {
    "trajectory-instance": dict(
        about="losses of trajectories; instance norm, swish, not square",
        image=[2, 8, 7], classes=3, synthetic=2, steps=3, alpha=0.2, epsilon=0.9,
        network=convnet(2, 5, "instance", "swish")),
    "trajectory-relu": dict(
        about="losses of trajectories; the recipes' network, ReLU, and more steps",
        image=[2, 8, 7], classes=3, synthetic=2, steps=6, alpha=0.1, epsilon=0.9,
        network=convnet(2, 5, "instance", "relu")),
}


def labels(case, x):
    return jax.nn.one_hot(jnp.repeat(jnp.arange(case["classes"]), case["synthetic"]), case["classes"], dtype=x.dtype)


def gradient(case, theta, x):
    return jax.grad(lambda t: cross_entropy(logits(case, t, x), labels(case, x)))(theta)


def train(case, start, alpha, x):
    thetas = [start]
    for _ in range(case["steps"]):
        thetas.append(thetas[-1] - alpha * gradient(case, thetas[-1], x))
    return thetas


def loss(theta, data, mask):
    return (mask * (theta - data["target"]) ** 2).sum() / (mask * (data["start"] - data["target"]) ** 2).sum()


def through_all_steps(case, data, alpha, mask):
    value, (by_alpha, by_x) = jax.value_and_grad(
        lambda a, x: loss(train(case, data["start"], a, x)[-1], data, mask), argnums=(0, 1))(alpha, data["syn_x"])
    return value, by_alpha, by_x


def without_second_derivatives(case, data, alpha, mask):
    x, by_x, by_alpha = data["syn_x"], 0, 0
    thetas = train(case, data["start"], alpha, x)
    value, pull = jax.value_and_grad(loss)(thetas[-1], data, mask)
    for theta in thetas[:-1]:
        g, transpose = jax.vjp(lambda images, at=theta: gradient(case, at, images), x)
        by_x -= alpha * transpose(pull)[0]
        by_alpha -= pull @ g
    return value, by_alpha, by_x


def unlike(case, reading, theta, data):
    """What is dropped where it is above 0."""
    target, epsilon = data["target"], case["epsilon"]
    if reading == "ratio":
        small, large = jnp.minimum(abs(theta), abs(target)), jnp.maximum(abs(theta), abs(target))
        return epsilon - jnp.where((theta < 0) != (target < 0), 0, small / large)
    return abs(theta - target) / abs(target - data["start"]) - epsilon


def on_a_verge(case, data):
    """Whether rounding might choose the side of a kink, or of a mask."""
    thetas = train(case, data["start"], case["alpha"], data["syn_x"])
    verges = [abs(unlike(case, reading, thetas[-1], data)).min() - 1e-4 for reading in ("ratio", "distance")]
    for theta in thetas[:-1] if case["network"]["activation"] == "relu" else []:
        features(case, theta, data["syn_x"], lambda x: verges.append(abs(x).min() - 1e-5))
    return min(verges) < 0


def solve(case, data):
    alpha = jnp.asarray(case["alpha"], data["start"].dtype)
    student, ones = train(case, data["start"], alpha, data["syn_x"])[-1], jnp.ones_like(data["start"])
    answers = {"mtt": through_all_steps(case, data, alpha, ones),
               "tesla": without_second_derivatives(case, data, alpha, ones)}
    for reading in ("ratio", "distance"):
        mask = (unlike(case, reading, student, data) <= 0).astype(ones.dtype)
        answers[reading] = through_all_steps(case, data, alpha, mask)
        print(f"{reading}: keeps {int(mask.sum())} of {len(mask)}")
    return {name: np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])
            for name, parts in answers.items()}


def errors(value, single):
    off = abs(single - value)
    return off[0] / abs(value[0]), off[1] / abs(value[1]), off[2:].max() / abs(value[2:]).max()


def draw(case, seed):
    random = np.random.default_rng(seed)
    start = initial_theta(case, random)
    data = dict(
        start=start, target=start + 0.05 * random.normal(size=start.shape),
        syn_x=random.normal(size=(case["classes"] * case["synthetic"], *case["image"])))
    return {name: value.astype(np.float32) for name, value in data.items()}


def as_type(data, dtype):
    return {name: jnp.asarray(value, dtype) for name, value in data.items()}


def make(name, case):
    seed = next(seed for seed in range(2, 100) if not on_a_verge(case, as_type(draw(case, seed), jnp.float64)))
    data = draw(case, seed)
    print(f"{name}: seed {seed}")
    exact, single = (solve(case, as_type(data, dtype)) for dtype in (jnp.float64, jnp.float32))
    folder = pathlib.Path(__file__).parent / name
    folder.mkdir(exist_ok=True)
    for array, value in data.items():
        np.save(folder / f"{array}.npy", value)
    lines = [f"# {case['about']}"]
    lines += [f"{key}: {case[key]}" for key in ("image", "classes", "synthetic", "steps", "alpha", "epsilon")]
    lines += ["network:"] + [f"  {key}: {value}" for key, value in case["network"].items()] + ["float32_error:"]
    for answer, value in exact.items():
        np.save(folder / f"expect_{answer}.npy", value)
        np.save(folder / f"single_{answer}.npy", single[answer].astype(np.float32))
        error = errors(value, single[answer])
        lines += [f"  {answer}: [{', '.join(f'{e:.1e}' for e in error)}]"]
        print(f"{answer}: loss {value[0]:.6g}, float32's is {error[0]:.1e} off, by alpha {error[1]:.1e}, "
              f"by S {error[2]:.1e}")
    (folder / "case.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    for name, case in CASES.items():
        make(name, case)
