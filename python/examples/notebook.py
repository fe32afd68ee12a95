"""A session in cells, for Jupyter (which reads `# %%`) or as it is: images of one's own are distilled, looked at,
evaluated, and a model is trained on them. Takes about a minute on two CPU cores; writes into the working directory."""

# %% Images of three classes: a bright bar on noise, whose place is the class. Yours are arrays [N,C,H,W] too.
import numpy as np

import retort

random = np.random.default_rng(0)
labels = np.arange(390) % 3
images = random.random((390, 1, 8, 8), np.float32) * 0.75
for image, label in zip(images, labels):
    image[0, 1 + 2 * label] += 0.25
train, test = slice(0, 300), slice(300, None)
retort.write_data("bars.npz", images[train], labels[train], images[test], labels[test])

# %% Distil them to one image a class. The stop button stops it; this cell again, with resume=True, goes on.
descriptor = {
    "data": {"kind": "npy", "path": "bars.npz"},
    "network": {"depth": 2, "width": 8},
    "inner": {"steps": 20, "lr": 0.02},
    "set": {"ipc": 1, "init": "real"},
    "method": {"window": 10, "range": 2},
    "outer": {"steps": 60, "lr": 0.03, "real_batch": 60},
    "evaluate": {"networks": 3, "steps": [60]},
}
losses = []


def progress(at):
    losses.append(at.loss)
    if at.outer_step % 10 == 0:
        print(f"{at.outer_step} of {at.outer_steps}: loss {at.loss:.3f}")


result = retort.run(descriptor, out="bars-run", progress=progress)
print(result.accuracy["distilled"], result.accuracy["random"], sep="\n")
result  # in a notebook: the images

# %% The set as arrays, in the space that networks train in, and as pixels.
bars = retort.load(result.folder)
print(bars, bars.images.dtype, bars.labels, float(bars.pixels().mean()))

# %% Evaluate it again, with more networks.
again = retort.evaluate(bars, settings={"evaluate.networks": 5})
print(again.accuracy["distilled"].runs)

# %% Train something of your own on it. Test images are normalised as the set's data were.
x, y = bars.images.reshape(len(bars), -1), bars.labels
unseen = bars.normalise(images[test]).reshape(-1, x.shape[1])
nearest = y[((unseen[:, None] - x) ** 2).sum(-1).argmin(1)]
print(f"nearest distilled image: {100 * (nearest == labels[test]).mean():.0f} % right")

# %% The same in PyTorch, where it is installed.
try:
    import torch
except ImportError:
    print("PyTorch is not installed")
else:
    x, y = torch.from_numpy(bars.images), torch.from_numpy(bars.labels).long()
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                                torch.nn.Linear(8 * 8 * 8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    right = model(torch.from_numpy(bars.normalise(images[test]))).argmax(1).numpy() == labels[test]
    print(f"PyTorch: {100 * right.mean():.0f} % right")
