"""Distil image data sets into a few synthetic images per class, on any OpenCL device.

    result = retort.run("quickstart.yaml", progress=lambda at: print(at.outer_step, at.loss))
    distilled = retort.load(result.folder)
    distilled.images, distilled.labels          # NumPy; torch.from_numpy(distilled.images)
    retort.evaluate(result.folder, settings={"evaluate.networks": 10}).accuracy["distilled"].mean

Keys of descriptors: docs/descriptor.md, or `retort run --help-keys`.
"""

import json
import os
import queue
import tempfile
import threading
from dataclasses import dataclass, field
from typing import Dict, NamedTuple, Optional

import numpy as np

from . import _library
from ._library import (DeviceError, Error, FileError, FormatError, InvalidInput, Interrupted, MemoryLimit, Mismatch,
                       NumericError, OutOfMemory, Unsupported, chars, check, ffi, lib, text)

__version__ = _library.VERSION
__all__ = ["run", "load", "evaluate", "write_data", "devices", "verbosity", "Result", "Evaluation", "Accuracy", "Set",
           "Progress", "Device", "Error", "InvalidInput", "OutOfMemory", "FileError", "FormatError", "DeviceError",
           "MemoryLimit", "NumericError", "Interrupted", "Unsupported", "Mismatch"]


def verbosity(level):
    """How much the library says on standard error: 0 nothing, 1 warnings (the default here), 2 what it is doing."""
    lib.retort_log_verbosity(level)


verbosity(1)


class Device(NamedTuple):
    """An OpenCL device. `index` is what the descriptor's device.select takes; memory is in bytes."""

    index: int
    name: str
    platform: str
    driver: str
    is_gpu: bool
    compute_units: int
    global_memory: int
    max_allocation: int


def devices():
    """The OpenCL devices of this machine."""
    rows, count = ffi.new("struct retort_device **"), ffi.new("size_t *")
    check(lib.retort_device_list(rows, count))
    found = [Device(row.index, text(row.name), text(row.platform), text(row.driver), bool(row.is_gpu),
                    row.compute_units, row.global_memory, row.max_allocation)
             for row in (rows[0][i] for i in range(count[0]))]
    lib.retort_device_list_free(rows[0])
    return found


# --- calls that take long ---
class Progress(NamedTuple):
    """Where a run is. Loss and accuracy (percent) are those of the real batch, NaN where the method has none; `stage` is
    None where it has no stages."""

    outer_step: int
    outer_steps: int
    loss: float
    accuracy: float
    stage: Optional[str]


def _wait_for(work, progress=None):
    """Calls work(stop, hook) on a thread of its own, so that Ctrl-C is heard while the library computes, and gives back
    what it returns. `stop` is the library's interrupt flag; hook(at), for that thread, calls `progress` on this one and
    comes back when that has."""
    stop, news, answers, outcome = ffi.new("int *"), queue.SimpleQueue(), queue.SimpleQueue(), []

    def hook(at):
        news.put(at)
        # Not for ever: Ctrl-C may have taken this thread's caller away between any two of its steps.
        while not stop[0]:
            try:
                return answers.get(timeout=0.2)
            except queue.Empty:
                pass

    def go():
        try:
            outcome.append((work(stop, hook), None))
        except BaseException as error:
            outcome.append((None, error))
        news.put(None)

    thread = threading.Thread(target=go, name="retort", daemon=True)
    thread.start()
    raised = None
    while thread.is_alive() or not outcome:
        try:
            at = news.get(timeout=0.2)
            if at is None:
                break
            if not stop[0]:
                if progress(at) is False:
                    stop[0] = 1
                answers.put(None)
        except queue.Empty:
            pass
        except BaseException as error:  # the callback's own, or KeyboardInterrupt
            stop[0] = 1
            raised = raised or error
    value, error = outcome[0]
    # What the library says of having been stopped is no news to who stopped it; any other failure is.
    if raised is not None and (error is None or isinstance(error, Interrupted)):
        raise raised
    if error is not None:
        raise error
    return value


class _Settings:
    """A dict of overrides as "KEY=VALUE" strings for the library, kept for as long as this object."""

    def __init__(self, settings):
        words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}"
                 for key, value in (settings or {}).items()]
        self.kept = [chars(word) for word in words]
        self.pointer = ffi.new("char *[]", self.kept + [ffi.NULL])


# --- results ---
@dataclass(frozen=True)
class Accuracy:
    """Percent of the test images: mean and standard deviation (n - 1) over the networks, and each of `runs`, after
    `step` training steps. `chosen_on` tells on what images that number of steps was chosen."""

    mean: float
    sd: float
    runs: np.ndarray = field(repr=False)
    step: int
    chosen_on: str


def _accuracies(rows):
    return {name: Accuracy(row["mean"], float("nan") if row["sd"] is None else row["sd"], np.array(row["runs"]),
                           row["step"], row["chosen_on"]) for name, row in rows.items()}


@dataclass(frozen=True)
class Evaluation:
    """What networks reached that were trained on a set ("distilled"), on as many random real images ("random") and,
    where asked for, on all ("full"). `details` is everything that `retort eval --json` prints."""

    accuracy: Dict[str, Accuracy]
    details: dict = field(repr=False)


@dataclass(frozen=True)
class Result:
    """A finished run. `details` is result.json; `accuracy` as in Evaluation, empty where there are no test images."""

    folder: str
    accuracy: Dict[str, Accuracy]
    details: dict = field(repr=False)

    @property
    def set(self):
        """The distilled set."""
        return load(self.folder)

    def _repr_png_(self):  # a notebook shows the images
        try:
            with open(os.path.join(self.folder, "preview.png"), "rb") as stream:
                return stream.read()
        except OSError:
            return None


# --- running ---
def run(descriptor=None, out=None, *, settings=None, resume=False, dry_run=False, profile=False, checkpoint_every=None,
        progress=None):
    """Distils, evaluates, writes the run folder, and returns a Result (None after a dry run).

    descriptor   the path of a YAML file, or a dict of the same form, whose relative paths start at the working
                 directory; None with `resume` and `out`: the folder's own
    out          the run folder, new or empty; None: runs/NAME-SEED
    settings     keys to override: {"set.ipc": 10, "seed": 1}
    resume       go on from the folder's newest checkpoint; a finished run is read again
    dry_run      read and plan everything, build the kernels, run nothing, write nothing
    profile      device time per kernel: a line of metrics.jsonl at the end
    checkpoint_every  seconds of work between checkpoints (20)
    progress     called with a Progress after every outer step, on this thread. Returning False stops the run, which
                 raises Interrupted; an exception stops it too and comes out of here, as KeyboardInterrupt does. In all
                 three cases what was done is saved, and resume=True goes on.
    """
    kept, overrides = chars(out), _Settings(settings)

    def work(stop, hook):
        options = ffi.new("struct retort_run_options *")
        options.out, options.settings, options.interrupt = kept, overrides.pointer, stop
        options.resume, options.dry_run, options.profile = resume, dry_run, profile
        options.checkpoint_every = checkpoint_every or 0

        @ffi.callback("void(void *, const struct retort_progress *)")
        def report(_, at):
            hook(Progress(at.outer_step, at.outer_steps, at.loss, at.accuracy, text(at.stage)))

        if progress is not None:
            options.progress = report
        pointer = ffi.new("struct retort_run **")
        if isinstance(descriptor, dict):
            words = json.dumps(descriptor).encode()
            check(lib.retort_run_create_text(b"descriptor", ffi.NULL, words, options, pointer))
        else:
            check(lib.retort_run_create(chars(descriptor), options, pointer))
        try:
            check(lib.retort_run_execute(pointer[0]))
            return text(lib.retort_run_folder(pointer[0])), text(lib.retort_run_result(pointer[0]))
        finally:
            lib.retort_run_destroy(pointer[0])

    folder, result = _wait_for(work, progress)
    if result is None:
        return None
    details = json.loads(result)
    return Result(folder, _accuracies(details["accuracy"]), details)


# --- sets ---
def _array(pointer, dtype, shape):
    count = int(np.prod(shape))
    bytes_ = ffi.buffer(pointer, count * np.dtype(dtype).itemsize)
    return np.frombuffer(bytes_, dtype=dtype, count=count).reshape(shape).copy()


class Set:
    """A distilled set: retort.load reads one.

    path          where it was read
    images        float32 [N,C,H,W] in the space that networks are trained in
    labels        int32 [N], the class of each; where labels were learned, the one that it began with
    soft_labels   float32 [N,K] learned labels, at least 0; None where they were not learned
    class_names   K strings
    inner_lr      the learning rate of training on them: learned with the images, or the recipe's; None where
                  nothing tells
    about         set.json: recipe, seed, device, hashes
    """

    def __init__(self, path):
        pointer = ffi.new("struct retort_set **")
        check(lib.retort_set_read(chars(path), pointer))
        self._set = set_ = ffi.gc(pointer[0], lib.retort_set_destroy)
        shape = lib.retort_set_shape(set_)
        n, k = shape.count, shape.classes
        self.path = os.path.abspath(os.fspath(path))
        self.images = _array(lib.retort_set_images(set_), np.float32, (n, shape.channels, shape.height, shape.width))
        self.labels = _array(lib.retort_set_labels(set_), np.int32, (n,))
        soft = lib.retort_set_soft_labels(set_)
        self.soft_labels = None if soft == ffi.NULL else _array(soft, np.float32, (n, k))
        self.class_names = [text(lib.retort_set_class_name(set_, i)) for i in range(k)]
        self.inner_lr = lib.retort_set_inner_lr(set_) or None
        self.about = json.loads(text(lib.retort_set_about(set_)))

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        n, c, h, w = self.images.shape
        return f"<retort.Set: {n} images of {c} x {h} x {w}, {len(self.class_names)} classes, {self.path}>"

    def pixels(self):
        """The images with the normalisation undone, float32 [N,C,H,W] in [0,1] or a little outside. Where the data were
        whitened image by image (about["normalisation_can_be_undone"] is False) they are on no known scale."""
        out = np.empty(self.images.shape, np.float32)
        check(lib.retort_set_pixels(self._set, ffi.from_buffer("float[]", out), ffi.NULL))
        return out

    def normalise(self, images):
        """Pixels [M,C,H,W], uint8 or in [0,1], as the networks want them, normalised as the set's own data were."""
        out = _pixels(images)
        if out.shape[1:] != self.images.shape[1:]:
            raise ValueError(f"found images {list(out.shape)}, expected [M,{','.join(map(str, self.images.shape[1:]))}]")
        check(lib.retort_set_normalise(self._set, ffi.from_buffer("float[]", out, require_writable=True), len(out)))
        return out


def load(path):
    """Reads a set: of a finished run folder, of a set folder, or of what `retort export` wrote (its folder, or the .npz
    or .safetensors file). No device is needed."""
    return Set(path)


def evaluate(set, *, descriptor=None, settings=None):
    """Trains fresh networks on a set, tests them, and does the same with random real images. Returns an Evaluation.

    set          a Set, what load takes, or (images, labels): float arrays as networks train on them or uint8
                 pixels, [N,C,H,W], and [N] or [N,K] labels, with a descriptor
    descriptor   data, network and protocol from this path or dict instead of the set's own recipe
    settings     keys to override: {"evaluate.networks": 10}
    """
    overrides = _Settings(settings)

    def work(stop, _):
        options = ffi.new("struct retort_evaluate_options *")
        options.settings, options.interrupt = overrides.pointer, stop
        kept = [chars(json.dumps(descriptor) if isinstance(descriptor, dict) else descriptor), chars(None)]
        if isinstance(descriptor, dict):
            options.text = kept[0]
        else:
            options.descriptor = kept[0]
        pointer = ffi.new("struct retort_evaluation **")
        with tempfile.TemporaryDirectory(prefix="retort-") as folder:
            path = set.path if isinstance(set, Set) else set
            if isinstance(set, tuple):
                path, labels = os.path.join(folder, "images.npy"), os.path.join(folder, "labels.npy")
                np.save(path, np.ascontiguousarray(set[0]))
                np.save(labels, np.ascontiguousarray(set[1]))
                options.labels = kept[1] = chars(labels)
            check(lib.retort_evaluate(chars(path), options, pointer))
        try:
            return json.loads(text(lib.retort_evaluation_json(pointer[0])))
        finally:
            lib.retort_evaluation_destroy(pointer[0])

    details = _wait_for(work)
    return Evaluation(_accuracies(details["accuracy"]), details)


# --- data ---
def _pixels(images):
    """A new float32 array [N,C,H,W] of uint8 or floating-point images [N,C,H,W] or, grey, [N,H,W]."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not (images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)):
        raise ValueError(f"found images {list(images.shape)} of {images.dtype}, expected [N,C,H,W] of uint8 or floats")
    scale = 255 if images.dtype == np.uint8 else 1
    return np.ascontiguousarray(np.array(images, np.float32) / np.float32(scale))


def write_data(path, images, labels, test_images=None, test_labels=None):
    """Writes arrays as an .npz for a descriptor's {"data": {"kind": "npy", "path": path}}: images [N,C,H,W] or, grey,
    [N,H,W], uint8 or in [0,1], and class numbers [N] from 0. Networks are tested on the test images, if there are any.
    """
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images and test_labels go together")
    parts, kept = [], []
    for pixels, classes in [(images, labels)] + ([] if test_images is None else [(test_images, test_labels)]):
        pixels, classes = _pixels(pixels), np.asarray(classes)
        if classes.shape != (len(pixels),) or not np.issubdtype(classes.dtype, np.integer):
            raise ValueError(f"found labels {list(classes.shape)} of {classes.dtype} for {len(pixels)} images, expected "
                             f"[{len(pixels)}] whole numbers")
        classes = np.ascontiguousarray(classes, np.int32)
        kept += [pixels, classes]
        parts.append(ffi.new("struct retort_images *", [*pixels.shape, ffi.from_buffer("float[]", pixels),
                                                        ffi.from_buffer("int32_t[]", classes)]))
    check(lib.retort_data_write(chars(path), parts[0], parts[1] if len(parts) > 1 else ffi.NULL))
