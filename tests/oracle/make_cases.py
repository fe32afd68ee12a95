#!/usr/bin/env python3
"""Makes the oracle cases of this folder: small truncated-BPTT problems with their exact answers.

    python3 -m venv build/venv && build/venv/bin/pip install jax && build/venv/bin/python tests/oracle/make_cases.py

The format is that of `retort check --help`. The answers come from JAX in double precision, by plain reverse
differentiation of the whole unrolled training, so they share nothing with Retort but the definitions:

- theta is flat, block by block: conv weight [O,I,3,3], bias [O], and with a norm gamma [O], beta [O]; head weight [K,F],
  head bias [K]. An MLP: weight [width,in], bias [width], ..., head.
- convolution 3x3, padding 1, stride 1; norms with the biased variance and eps 1e-5, affine per channel; batch norm by the
  statistics of the batch at hand, in the meta-loss too; gelu by erf; pooling 2x2, odd sizes drop the last row and column.
- cross-entropy, mean over the batch; for soft labels -sum y log softmax, y not normalised.
- Adam: bias-corrected moments, eps outside the root; SGD: u = mu u + g, theta -= lr u; weight decay added to g.
- what enters the window is a constant.
- a convolution bias in front of instance or batch norm has no effect; its gradient is exactly zero.

A second run in float32 gives the tolerances: 30 times its relative error, at least 1e-5. A case whose float32 error is
large stands on a kink (or a tie of max pooling) and is refused.
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)

SGD = dict(optimizer="sgd", momentum=0.9, weight_decay=0.0005)
ADAM = dict(optimizer="adam", betas=[0.9, 0.99], eps=1e-8, weight_decay=0.0)


def convnet(depth, width, norm="none", activation="swish", pool="average", groups=1):
    return dict(kind="convnet", depth=depth, width=width, norm=norm, groups=groups, activation=activation, pool=pool)


CASES = {
    "group-gelu": dict(
        about="group norm, gelu, Adam; mini-batches with repeated rows",
        image=[2, 8, 8], classes=4, network=convnet(2, 6, "group", "gelu", groups=3),
        inner=dict(ADAM, lr=0.003), steps=6, window=4, labels="hard", count=6, batch=5, real=8),
    "layer-sigmoid-nopool": dict(
        about="layer norm, sigmoid, no pooling, momentum; window = steps",
        image=[1, 5, 6], classes=3, network=convnet(2, 5, "layer", "sigmoid", "none"),
        inner=dict(SGD, lr=0.02), steps=5, window=5, labels="soft", count=5, batch=4, real=8),
    "batch-swish-max": dict(
        about="batch norm, max pooling, Adam with weight decay",
        image=[2, 8, 8], classes=3, network=convnet(2, 6, "batch", "swish", "max"),
        inner=dict(ADAM, lr=0.002, weight_decay=0.01), steps=5, window=3, labels="hard", count=6, batch=6, real=9),
    "mlp-gelu-soft": dict(
        about="two hidden layers, soft labels, Adam with weight decay; eigenvalues",
        image=[1, 4, 4], classes=3, network=dict(kind="mlp", depth=2, width=8, activation="gelu"),
        inner=dict(ADAM, lr=0.01, weight_decay=0.01), steps=8, window=5, labels="soft", count=7, batch=5, real=10,
        eigenvalues=8),
    "instance-window-one": dict(
        about="a window of one step: no Hessian, the mixed derivative alone",
        image=[3, 6, 6], classes=4, network=convnet(1, 7, "instance", "sigmoid"),
        inner=dict(SGD, lr=0.05), steps=4, window=1, labels="soft", count=6, batch=3, real=8),
    "instance-leaky-max": dict(
        about="leaky ReLU and max pooling on odd sizes, plain gradient descent; window = steps",
        image=[1, 9, 7], classes=3, network=convnet(2, 5, "instance", "leaky_relu", "max"),
        inner=dict(optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.03), steps=4, window=4, labels="hard", count=5,
        batch=5, real=8),
    "group-one-momentum": dict(
        about="one group of all channels, not square, momentum; eigenvalues",
        image=[1, 6, 8], classes=3, network=convnet(1, 6, "group", "swish", groups=1),
        inner=dict(SGD, lr=0.05), steps=5, window=3, labels="hard", count=5, batch=4, real=8, eigenvalues=6),
    "wide-none-adam": dict(
        about="no norm, more channels than a vector has lanes, Adam",
        image=[3, 4, 4], classes=2, network=convnet(2, 17, "none", "swish"),
        inner=dict(ADAM, lr=0.001), steps=3, window=2, labels="hard", count=3, batch=2, real=4),
}


def layout(case):
    """Shapes of the parameters, and the fan-in of the layer each belongs to."""
    net, (channels, height, width) = case["network"], case["image"]
    shapes = []
    if net["kind"] == "mlp":
        inputs = channels * height * width
        for _ in range(net["depth"]):
            shapes += [((net["width"], inputs), inputs), ((net["width"],), inputs)]
            inputs = net["width"]
    else:
        for _ in range(net["depth"]):
            fan_in = 9 * channels
            shapes += [((net["width"], channels, 3, 3), fan_in), ((net["width"],), fan_in)]
            if net["norm"] != "none":
                shapes += [((net["width"],), 0), ((net["width"],), -1)]
            channels = net["width"]
            if net["pool"] != "none":
                height, width = height // 2, width // 2
        inputs = channels * height * width
    return shapes + [((case["classes"], inputs), inputs), ((case["classes"],), inputs)]


def standardise(x, axes):
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def normalise(x, net):
    if net["norm"] == "group":
        n, c, h, w = x.shape
        grouped = x.reshape(n, net["groups"], c // net["groups"], h, w)
        return standardise(grouped, (2, 3, 4)).reshape(x.shape)
    return standardise(x, {"instance": (2, 3), "layer": (1, 2, 3), "batch": (0, 2, 3)}[net["norm"]])


ACTIVATIONS = {
    "relu": lambda x: jnp.where(x > 0, x, 0),
    "leaky_relu": lambda x: jnp.where(x > 0, x, 0.01 * x),
    "sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + lax.erf(x * np.sqrt(0.5).astype(x.dtype))),
    "swish": lambda x: x / (1 + jnp.exp(-x)),
}


def pool(x, kind):
    if kind == "none":
        return x
    n, c, h, w = x.shape
    squares = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    return squares.max((3, 5)) if kind == "max" else squares.mean((3, 5))


def split(case, theta):
    parameters, at = [], 0
    for shape, _ in layout(case):
        count = int(np.prod(shape))
        parameters.append(theta[at : at + count].reshape(shape))
        at += count
    return parameters


def features(case, theta, x, before_activation=lambda x: None):
    """What the head reads, [N,F]. `before_activation` is shown what each activation reads."""
    net, parameters = case["network"], iter(split(case, theta))
    activation = ACTIVATIONS[net["activation"]]
    for _ in range(net["depth"]):
        weight, bias = next(parameters), next(parameters)
        if net["kind"] == "mlp":
            x = x.reshape(len(x), -1) @ weight.T + bias
            before_activation(x)
            x = activation(x)
            continue
        if net["norm"] in ("instance", "batch"):
            bias = lax.stop_gradient(bias)
        x = lax.conv_general_dilated(x, weight, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = x + bias[:, None, None]
        if net["norm"] != "none":
            gamma, beta = next(parameters), next(parameters)
            x = normalise(x, net) * gamma[:, None, None] + beta[:, None, None]
        before_activation(x)
        x = pool(activation(x), net["pool"])
    return x.reshape(len(x), -1)


def logits(case, theta, x):
    weight, bias = split(case, theta)[-2:]
    return features(case, theta, x) @ weight.T + bias


def cross_entropy(z, y):
    log_probability = z - jax.scipy.special.logsumexp(z, axis=1, keepdims=True)
    if y.ndim == 1:
        y = jnp.eye(z.shape[1], dtype=z.dtype)[y]
    return -(y * log_probability).sum(1).mean()


def inner_loss(case, theta, x, y):
    return cross_entropy(logits(case, theta, x), y)


def update(inner, t, theta, state, gradient):
    g = gradient + inner["weight_decay"] * theta
    if inner["optimizer"] == "sgd":
        u = inner["momentum"] * state[0] + g
        return theta - inner["lr"] * u, (u, state[1])
    b1, b2 = inner["betas"]
    m, v = b1 * state[0] + (1 - b1) * g, b2 * state[1] + (1 - b2) * g * g
    # Where v is 0 the root has no derivative; such entries do not move.
    live = v > 0
    root = jnp.where(live, jnp.sqrt(jnp.where(live, v, 1) / (1 - b2**t)), 0)
    return theta - inner["lr"] * (m / (1 - b1**t)) / (root + inner["eps"]), (m, v)


def train(case, data, x, y):
    """Inner losses, gradient norms, end weights; differentiable through the window."""
    theta, losses, norms = data["theta0"], [], []
    state = (jnp.zeros_like(theta), jnp.zeros_like(theta))
    for t in range(case["steps"]):
        if t == case["steps"] - case["window"]:
            theta, state = lax.stop_gradient((theta, state))
        rows = data["batches"][t]
        loss, gradient = jax.value_and_grad(lambda at: inner_loss(case, at, x[rows], y[rows]))(theta)
        losses.append(loss)
        norms.append(jnp.sqrt((gradient**2).sum()))
        theta, state = update(case["inner"], t + 1, theta, state, gradient)
    return jnp.stack(losses), jnp.stack(norms), theta


def solve(case, data):
    soft = case["labels"] == "soft"

    def meta(x, y):
        losses, norms, theta = train(case, data, x, y)
        outer = inner_loss(case, theta, data["real_x"], data["real_y"])
        return outer, (losses, norms, theta)

    argnums = (0, 1) if soft else (0,)
    (outer, (losses, norms, theta)), gradients = jax.jit(jax.value_and_grad(meta, argnums, has_aux=True))(
        data["syn_x"], data["syn_y"])
    answers = dict(inner_loss=losses, grad_norm=norms, theta_end=theta, outer_loss=outer[None], dsyn_x=gradients[0])
    if soft:
        answers["dsyn_y"] = gradients[1]
    if "eigenvalues" in case:
        hessian = jax.hessian(lambda at: inner_loss(case, at, data["syn_x"], data["syn_y"]))(data["theta0"])
        values = np.linalg.eigvalsh(np.asarray(hessian, np.float64))
        answers["hessian_eigenvalues"] = values[np.argsort(-abs(values))][: case["eigenvalues"]]
    return {name: np.asarray(value, np.float64) for name, value in answers.items()}


def initial_theta(case, random):
    theta = []
    for shape, fan_in in layout(case):
        values = random.uniform(-1, 1, shape) / np.sqrt(fan_in) if fan_in > 0 else 0.2 * random.normal(size=shape)
        theta.append((values + (fan_in == 0)).ravel())
    return np.concatenate(theta).astype(np.float32)


def problem(case, random):
    theta = initial_theta(case, random)
    count, classes = case["count"], case["classes"]
    if case["labels"] == "soft":
        syn_y = (0.1 + random.uniform(0, 1, (count, classes))).astype(np.float32)
    else:
        syn_y = (np.arange(count) % classes).astype(np.int32)
    return dict(
        theta0=theta,
        syn_x=random.normal(size=(count, *case["image"])).astype(np.float32),
        syn_y=syn_y,
        batches=random.integers(0, count, (case["steps"], case["batch"])).astype(np.int32),
        real_x=random.normal(size=(case["real"], *case["image"])).astype(np.float32),
        real_y=random.integers(0, classes, case["real"]).astype(np.int32))


def write(folder, case, data, answers, tolerance):
    folder.mkdir(exist_ok=True)
    for name, value in data.items():
        np.save(folder / f"{name}.npy", value)
    for name, value in answers.items():
        # A float32's own rounding is far below every tolerance.
        np.save(folder / f"expect_{name}.npy", value.astype(np.float32) if value.size > 64 else value)
    lines = [f"# {case['about']}", f"image: {case['image']}", f"classes: {case['classes']}", "network:"]
    lines += [f"  {key}: {value}" for key, value in case["network"].items()] + ["inner:"]
    lines += [f"  {key}: {value}" for key, value in case["inner"].items()]
    lines += [f"steps: {case['steps']}", f"window: {case['window']}", f"labels: {case['labels']}", "tolerance:"]
    lines += [f"  {name}: {value:.1e}" for name, value in tolerance.items()]
    (folder / "case.yaml").write_text("\n".join(lines) + "\n")


def main():
    for number, (name, case) in enumerate(CASES.items()):
        data = problem(case, np.random.default_rng(number))
        cast = lambda dtype: {k: jnp.asarray(v, dtype if v.dtype == np.float32 else None) for k, v in data.items()}
        exact, single = solve(case, cast(jnp.float64)), solve(case, cast(jnp.float32))
        tolerance = {}
        for key, value in exact.items():
            error = abs(single[key] - value).max() / abs(value).max()
            assert error < 1e-4, f"{name}: float32 is {error:.1e} off on {key}: a kink?"
            tolerance[key] = 1e-4 if key == "hessian_eigenvalues" else max(30 * error, 1e-5)
        folder = pathlib.Path(__file__).parent / name
        write(folder, case, data, exact, tolerance)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {len(data['theta0'])} weights, {size / 1000:.1f} kB,",
              ", ".join(f"{key} {value:.1e}" for key, value in tolerance.items()))


if __name__ == "__main__":
    main()
