#!/usr/bin/env python3
"""How TESLA's gradient by the set (method.hessian: none) lies to MTT's exact one, on Fashion-MNIST by
configs/features/trajectories.yaml: their cosine and the ratio of their lengths, as a Markdown table, a row for each
number of steps (exact ones) that the set has behind it. EXPERTS is what `retort experts` made for that descriptor; OUT
takes the run folders, and what is there is not run again. Needs numpy. RETORT names the program (build/retort), DRAWS
how many draws of expert, epoch and augmentation a row compares (5).

    bench/tesla_cosine.py EXPERTS OUT [STEPS ...]              0 100 300 1000

A step is outer SGD, whose checkpoint holds v' = momentum v + gradient: the gradient is what two of them differ by. Two
copies of the run go on for DRAWS steps, one with each gradient, at outer rates so small that the set stays as it is.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
RETORT = os.environ.get("RETORT", ROOT / "build/retort")
DRAWS = int(os.environ.get("DRAWS", 5))
MOMENTUM = 0.5
STILL = 1e-30  # a rate that no float of the set can feel


def run(*options):
    subprocess.run([RETORT, "run", *map(str, options), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def begin(folder, experts, steps, **settings):
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"method.experts": experts, "outer.steps": steps, "outer.momentum": MOMENTUM, "evaluate.networks": 1,
                "evaluate.epochs": 1, **settings}
    run(ROOT / "configs/features/trajectories.yaml", "--out", folder,
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))


def go_on(folder, steps, **settings):
    """A finished run, to `steps` steps in all, with other settings: keys of a section of its descriptor."""
    path = folder / "descriptor.yaml"
    text = path.read_text()
    for key, value in {"outer.steps": steps, **settings}.items():
        section, name = key.split(".")
        text, found = re.subn(rf"(^{section}:\n(?:  .*\n)*?  {name}: ).*", rf"\g<1>{value}", text, flags=re.M)
        assert found == 1, f"{path}: no line for {key}"
    path.write_text(text)
    (folder / "result.json").unlink(missing_ok=True)
    run("--resume", "--out", folder)


def copy(run_folder, folder):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run_folder, folder)


def velocity(folder, steps):
    return np.load(folder / f"checkpoint/{steps:06}.npz")["images_m"].astype(float) if steps else 0


def gradients(run_folder, folder, experts, steps, hessian):
    """[DRAWS, values of the set], of the run after so many steps; run_folder is None before the first."""
    kept = folder / "gradients.npy"
    if kept.exists():
        return np.load(kept)
    settings = {"method.hessian": hessian, "outer.lr": STILL, "outer.lr_inner": STILL}
    rows = []
    if run_folder:
        copy(run_folder, folder)
    for done in range(steps, steps + DRAWS):
        if done:
            go_on(folder, done + 1, **settings)
        else:
            begin(folder, experts, 1, **settings)
        rows.append(velocity(folder, done + 1) - MOMENTUM * velocity(folder, done))
    np.save(kept, rows)
    return np.array(rows)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    experts, out = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    print("| steps of the set | cosine, mean of draws (sd) | length of TESLA's / of the exact, mean |\n|---|---|---|")
    run_folder = None
    for steps in sorted(int(word) for word in sys.argv[3:] or (0, 100, 300, 1000)):
        before, run_folder = run_folder, out / f"run-{steps}" if steps else None
        if run_folder and not (run_folder / "result.json").exists():
            if before:
                copy(before, run_folder)
                go_on(run_folder, steps)
            else:
                begin(run_folder, experts, steps)
        exact, tesla = (gradients(run_folder, out / f"from-{steps}-{hessian}", experts, steps, hessian)
                        for hessian in ("exact", "none"))
        lengths = np.linalg.norm(exact, axis=1), np.linalg.norm(tesla, axis=1)
        cosines = (exact * tesla).sum(1) / (lengths[0] * lengths[1])
        each = ", ".join(f"{cosine:.3f}" for cosine in cosines)
        print(f"| {steps} | {cosines.mean():.3f} ({cosines.std(ddof=1):.3f}): {each} "
              f"| {(lengths[1] / lengths[0]).mean():.2f} |", flush=True)


if __name__ == "__main__":
    main()
