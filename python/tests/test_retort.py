"""The package against the library that RETORT_LIBRARY names. RETORT_SOURCE is the source tree, for the headers and the
notebook's example."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import cffi
import numpy as np
import pytest

import retort
from retort import _library

SOURCE = pathlib.Path(os.environ.get("RETORT_SOURCE", pathlib.Path(__file__).parents[2]))
CLASSES, SIDE = 3, 8


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(1)
    labels = np.arange(120) % CLASSES
    images = (random.random((120, 1, SIDE, SIDE)) * 128).astype(np.uint8)
    for image, label in zip(images, labels):
        image[0, 1 + 2 * label] += 127
    return images, labels


@pytest.fixture(scope="module")
def descriptor(data, tmp_path_factory):
    images, labels = data
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    retort.write_data(path, images[:90], labels[:90], images[90:], labels[90:])
    return {
        "data": {"kind": "npy", "path": str(path)},
        "network": {"depth": 1, "width": 8},
        "inner": {"steps": 6, "lr": 0.02},
        "set": {"init": "real"},
        "method": {"window": 3, "range": 1},
        "outer": {"steps": 4, "lr": 0.01, "real_batch": 24},
        "evaluate": {"networks": 2, "steps": [10]},
    }


@pytest.fixture(scope="module")
def finished(descriptor, tmp_path_factory):
    seen = []
    result = retort.run(descriptor, tmp_path_factory.mktemp("runs") / "one", progress=seen.append)
    return result, seen


def test_declarations_are_those_of_the_headers():
    words = ""
    for path in sorted((SOURCE / "include/retort").glob("*.h")):
        header = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.S)
        words += re.sub(r"^#.*$", "", header, flags=re.M)
    headers, ours = cffi.FFI(), _library.ffi
    headers.cdef(words)
    library = headers.dlopen(os.environ["RETORT_LIBRARY"])
    functions = re.findall(r"\b(retort_\w+)\(", _library.DECLARATIONS)
    structs = re.findall(r"^(struct \w+) \{", _library.DECLARATIONS, flags=re.M)
    assert len(functions) > 20 and len(structs) > 5
    for name in functions:
        assert headers.typeof(getattr(library, name)).cname == ours.typeof(getattr(_library.lib, name)).cname
    for name in structs:
        assert headers.sizeof(name) == ours.sizeof(name)
        theirs, mine = headers.typeof(name).fields, ours.typeof(name).fields
        assert [(f, t.offset, t.type.cname) for f, t in theirs] == [(f, t.offset, t.type.cname) for f, t in mine]


def test_version_is_the_librarys():
    found = re.search(r"version: '(.*?)'", (SOURCE / "meson.build").read_text()).group(1)
    assert retort.__version__ == found
    assert f'version = "{found}"' in (SOURCE / "python/pyproject.toml").read_text()


def test_devices():
    assert len(retort.devices()) > 0
    first = retort.devices()[0]
    assert first.index == 0 and first.name and first.compute_units > 0 and first.global_memory >= first.max_allocation


def test_run(finished):
    result, seen = finished
    assert [at.outer_step for at in seen] == [1, 2, 3, 4]
    assert all(at.outer_steps == 4 and at.loss > 0 for at in seen)
    distilled = result.accuracy["distilled"]
    assert len(distilled.runs) == 2 and np.isclose(distilled.mean, distilled.runs.mean()) and distilled.step == 10
    assert 0 <= result.accuracy["random"].mean <= 100 and "full" not in result.accuracy
    assert result.details["set_sha256"] == result.set.about["set_sha256"]
    assert result._repr_png_().startswith(b"\x89PNG")


def test_set(finished, data):
    folder = pathlib.Path(finished[0].folder)
    found = retort.load(folder)
    assert np.array_equal(found.images, np.load(folder / "set/images.npy")) and found.images.dtype == np.float32
    assert found.images.flags.writeable and found.images.shape == (CLASSES, 1, SIDE, SIDE) and len(found) == CLASSES
    assert found.labels.tolist() == [0, 1, 2] and found.soft_labels is None and found.inner_lr == 0.02
    assert len(found.class_names) == CLASSES and found.about["recipe"]["set"]["ipc"] == 1
    assert np.allclose(found.normalise(found.pixels()), found.images, atol=1e-4)
    train = data[0][:90].astype(np.float32) / 255
    assert np.allclose(found.normalise(data[0][90:]), (data[0][90:] / 255.0 - train.mean()) / train.std(), atol=1e-3)
    assert "3 images of 1 x 8 x 8" in repr(found)
    with pytest.raises(ValueError, match="expected"):
        found.normalise(np.zeros((2, 1, 4, 4)))


@pytest.mark.parametrize("kind", ["npz", "safetensors", "png"])
def test_exported_sets(finished, tmp_path, kind):
    if "RETORT_PROGRAM" not in os.environ:
        pytest.skip("RETORT_PROGRAM names no program that exports")
    place = tmp_path / "exported"
    subprocess.run([os.environ["RETORT_PROGRAM"], "export", finished[0].folder, "--format", kind, "--out", place],
                   check=True, capture_output=True)
    found, origin = retort.load(place), finished[0].set
    assert np.array_equal(found.images, origin.images) and np.array_equal(found.pixels(), origin.pixels())
    assert found.labels.tolist() == origin.labels.tolist() and found.class_names == origin.class_names
    assert found.about["set_sha256"] == origin.about["set_sha256"]


def test_learned_labels(descriptor, tmp_path):
    settings = {"set.labels": "soft", "set.ipc": 2, "inner.learn_lr": True, "evaluate.networks": 1}
    found = retort.run(descriptor, tmp_path / "soft", settings=settings).set
    assert found.soft_labels.shape == (6, CLASSES) and 0 < found.inner_lr != 0.02
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_stopped_and_resumed(descriptor, finished, tmp_path):
    steps = []

    def stop_at_two(at):
        steps.append(at.outer_step)
        return at.outer_step < 2

    with pytest.raises(retort.Interrupted, match="outer step 2 of 4"):
        retort.run(descriptor, tmp_path / "run", progress=stop_at_two)
    assert steps == [1, 2]

    def fail(at):
        steps.append(at.outer_step)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        retort.run(out=tmp_path / "run", resume=True, progress=fail)
    result = retort.run(out=tmp_path / "run", resume=True, progress=lambda at: steps.append(at.outer_step))
    assert steps == [1, 2, 3, 4]
    assert result.details["set_sha256"] == finished[0].details["set_sha256"]


def test_keyboard_interrupt(descriptor, finished):
    """Ctrl-C is heard in the middle of a computation that would take hours."""
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        retort.evaluate(finished[0].folder, settings={"evaluate.steps": [10000000]})
    timer.join()


def test_evaluate(descriptor, finished):
    result = finished[0]
    again = retort.evaluate(result.set)
    assert np.array_equal(again.accuracy["distilled"].runs, result.accuracy["distilled"].runs)
    assert again.details["images"] == CLASSES
    arrays = retort.evaluate((result.set.images, result.set.labels), descriptor=descriptor,
                             settings={"evaluate.networks": 1})
    assert arrays.accuracy["distilled"].runs.tolist() == result.accuracy["distilled"].runs[:1].tolist()
    assert np.isnan(arrays.accuracy["distilled"].sd)


def test_errors(descriptor, finished, tmp_path):
    with pytest.raises(retort.InvalidInput, match="did you mean outer.steps") as raised:
        retort.run({**descriptor, "outer": {"stepz": 3}}, tmp_path / "never")
    assert isinstance(raised.value, ValueError) and raised.value.status == -1
    with pytest.raises(retort.InvalidInput, match="is not empty"):
        retort.run(descriptor, finished[0].folder)
    with pytest.raises(retort.InvalidInput, match="no such file|No such file|not there|cannot"):
        retort.run(tmp_path / "none.yaml")
    with pytest.raises(retort.Error, match="is not there"):
        retort.load(tmp_path / "nothing")
    with pytest.raises(retort.InvalidInput, match="name a descriptor"):
        retort.evaluate((np.zeros((3, 1, SIDE, SIDE), np.float32), np.arange(3)))
    with pytest.raises(retort.FormatError, match="shape"):
        retort.evaluate((np.zeros((3, 2, SIDE, SIDE), np.float32), np.arange(3)), descriptor=descriptor)
    assert not (tmp_path / "never").exists()


def test_data_errors(data, tmp_path):
    images, labels = data
    path = tmp_path / "wrong.npz"
    with pytest.raises(retort.InvalidInput, match="a pixel of image 0"):
        retort.write_data(path, images.astype(np.float32), labels)
    with pytest.raises(retort.InvalidInput, match="label 0 is -1"):
        retort.write_data(path, images, labels - 1)
    with pytest.raises(ValueError, match="whole numbers"):
        retort.write_data(path, images, labels[:5])
    with pytest.raises(ValueError, match="go together"):
        retort.write_data(path, images, labels, images)
    with pytest.raises(retort.FileError, match="nowhere"):
        retort.write_data("/nowhere/at/all.npz", images, labels)
    assert not path.exists()
    retort.write_data(path, images[:, 0], labels)  # grey images without the axis of channels
    with np.load(path) as kept:
        assert np.allclose(kept["images"], images / 255.0) and kept["labels"].tolist() == labels.tolist()


def test_library_that_is_not_there():
    done = subprocess.run([sys.executable, "-c", "import retort"], env={**os.environ, "RETORT_LIBRARY": "/nowhere.so"},
                          capture_output=True, text=True)
    assert done.returncode == 1 and "ImportError: cannot load the library of Retort" in done.stderr
    assert "/nowhere.so" in done.stderr


def test_notebook(tmp_path):
    done = subprocess.run([sys.executable, SOURCE / "python/examples/notebook.py"], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert "60 of 60: loss" in done.stdout
    right = int(re.search(r"nearest distilled image: (\d+) % right", done.stdout).group(1))
    assert right > 50  # of three classes
