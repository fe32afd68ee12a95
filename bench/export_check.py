#!/usr/bin/env python3
"""Runs the code of an export's README, block by block as it stands there, and checks what it leaves: that the arrays are
those of the set folder to the last bit, that each library takes them, that the normalisation can be undone and done
again, that pictures are what the README says of them. Started by bench/export_check.sh.

Prints a line a block: ok, skip (a library is missing) or FAILED. Exit status 1 where one failed."""
import argparse
import math
import os
import pathlib
import re

import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("export", type=pathlib.Path)
parser.add_argument("--set", type=pathlib.Path, required=True, help="the folder with images.npy that it was made from")
parser.add_argument("--name", default="", help="printed in front")
options = parser.parse_args()

images, labels = np.load(options.set / "images.npy"), np.load(options.set / "labels.npy")
readme = (options.export / "README.md").read_text(encoding="utf-8")
os.chdir(options.export)


def same(found, expected):
    found = np.asarray(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape, (found.dtype, found.shape)
    assert found.tobytes() == expected.tobytes(), "other bytes"


def hot(numbers, classes):
    return np.eye(classes, dtype=np.float32)[numbers] if numbers.ndim == 1 else numbers


def check_pytorch(left):
    same(left["images"].numpy(), images)
    same(left["labels"].to(left["torch"].from_numpy(labels).dtype).numpy(), labels)
    assert math.isfinite(float(left["loss"].detach()))
    assert left["about"]["classes"] == left["model"][-1].out_features == len(left["about"]["class_names"])


def check_jax(left):
    same(left["images"], images)
    same(left["labels"], hot(labels, left["about"]["classes"]))
    before = left["loss"]({name: 0 * value for name, value in left["weights"].items()})
    assert float(left["loss"](left["weights"])) < float(before)


def check_scikit_learn(left):
    same(left["images"], images.reshape(len(images), -1))
    assert left["model"].score(left["images"], left["labels"]) == 1, "a linear model does not separate the set"


def check_pixels(left):
    assert left["pixels"].shape == images.shape
    if left["about"]["normalisation"] == "zca":
        return  # brightness and contrast of an image are lost
    difference = np.abs(left["normalise"](left["pixels"]) - images).max() / np.abs(images).max()
    assert difference < 1e-4, f"undone and done again, images differ by {difference:.1e} of their largest value"


def check_pictures(left):
    assert left["pixels"].shape == images.shape
    assert (left["labels"] == hot(labels, len(set(left["labels"]))).argmax(1)).all() or labels.ndim == 2
    told = float(re.search(r"by more than ([0-9.]+) of 255 levels", readme)[1])
    if "scaled to its own" in readme:
        assert told <= 0.5
        return
    code = re.search(r"## Pixels.*?```python\n(.*?)```", readme, re.S)[1]
    scope = {}
    exec(code, scope)
    rounding = np.abs(np.clip(scope["pixels"], 0, 1) - left["pixels"]).max() * 255
    assert abs(rounding - told) < 0.002, f"rounding changed {rounding:.4f} levels, the README says {told}"


checks = {"PyTorch": check_pytorch, "JAX": check_jax, "scikit-learn": check_scikit_learn,
          "Pixels, and your test images": check_pixels, "The pictures": check_pictures}
blocks = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", readme, re.S | re.M)
wanted = set(checks) - (set() if (options.export / "images").is_dir() else {"The pictures"})
failed = {title for title, _ in blocks} != wanted
if failed:
    print(f"FAILED  {options.name}: the README has code for {[title for title, _ in blocks]}, expected {wanted}")
for title, code in blocks:
    scope = {"__name__": "readme"}
    try:
        exec(compile(code, f"README.md, {title}", "exec"), scope)
        checks[title](scope)
        print(f"ok      {options.name}: {title}")
    except ImportError as missing:
        print(f"skip    {options.name}: {title}: {missing}")
    except Exception as error:
        failed = True
        print(f"FAILED  {options.name}: {title}: {type(error).__name__}: {error}")
raise SystemExit(failed)
