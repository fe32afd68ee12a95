"""A run that is interrupted and resumed, its events read by TensorBoard's own reader. Prints TAP; skips with a word where
TensorBoard is neither in build/python_tensorboard nor can be fetched into it."""
import gzip
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

source = pathlib.Path(os.environ['RETORT_SOURCE'])
program = os.environ['RETORT_PROGRAM']
environment = pathlib.Path(program).parent / 'python_tensorboard'
STEPS = 30


def skip(why):
    print(f'1..0 # SKIP {why}')
    sys.exit(0)


def go_on_with_tensorboard():
    """Runs this file again by the Python that has TensorBoard."""
    python = environment / 'bin' / 'python'
    if not list(environment.glob('lib/*/site-packages/tensorboard/version.py')):
        try:
            subprocess.run([sys.executable, '-m', 'venv', environment], check=True, timeout=300, capture_output=True)
            subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--timeout', '10', '--retries', '1',
                            'tensorboard'], check=True, timeout=900, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            skip(f'TensorBoard cannot be fetched into {environment}: {error}')
    os.execv(python, [python, __file__, 'read'])


def write_data(folder):
    """IDX files of 8 x 8 images: a bright line for each of three classes, on noise."""
    draw = random.Random(1)
    for part, count in (('train', 60), ('t10k', 30)):
        labels = bytes(i % 3 for i in range(count))
        pixels = bytes(draw.randrange(100) + 150 * (y == 2 * label) for label in labels for y in range(8) for _ in range(8))
        with gzip.open(folder / f'{part}-images-idx3-ubyte.gz', 'wb') as file:
            file.write(struct.pack('>4I', 0x803, count, 8, 8) + pixels)
        with gzip.open(folder / f'{part}-labels-idx1-ubyte.gz', 'wb') as file:
            file.write(struct.pack('>2I', 0x801, count) + labels)
    (folder / 'bars.yaml').write_text(f'''data: {{kind: idx, path: .}}
network: {{kind: mlp, depth: 1, width: 8, norm: none}}
inner: {{steps: 4, optimizer: sgd, lr: 0.02}}
method: {{window: 3, truncation: random}}
outer: {{steps: {STEPS}, real_batch: 24}}
evaluate: {{networks: 1, steps: [10]}}
''')


def run(folder):
    """Stops the run after some steps, and goes on."""
    out = folder / 'out'
    command = [program, 'run', folder / 'bars.yaml', '--out', out, '--tensorboard', '--quiet']
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    metrics = out / 'metrics.jsonl'
    while begun.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b'\n') >= 3):
        time.sleep(0.002)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    files = len(list((out / 'tensorboard').iterdir()))
    subprocess.run(command + ['--resume'], check=True, stdout=subprocess.DEVNULL)
    assert files == 1 and len(list((out / 'tensorboard').iterdir())) > 1, 'a sitting has no event file of its own'
    return out


def check(out):
    from tensorboard.backend.event_processing import event_accumulator
    events = event_accumulator.EventAccumulator(str(out / 'tensorboard'), size_guidance={'scalars': 0, 'images': 0})
    events.Reload()
    rows = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    assert [row['outer_step'] for row in rows] == list(range(1, STEPS + 1))
    for tag in ('loss', 'accuracy', 'gradient_norm', 'window', 'end'):
        seen = events.Scalars(tag)
        assert [event.step for event in seen] == list(range(1, STEPS + 1)), f'{tag}: {[event.step for event in seen]}'
        for event, row in zip(seen, rows):
            assert abs(event.value - row[tag]) <= 1e-6 * max(1, abs(row[tag])), f'{tag}, step {event.step}'
    result = json.loads((out / 'result.json').read_text())
    final = events.Scalars('evaluation/distilled')
    assert len(final) == 1 and abs(final[0].value - result['accuracy']['distilled']['mean']) < 1e-4
    kept = sorted(int(path.stem) for path in (out / 'previews').iterdir())
    images = events.Images('set')
    assert kept[0] == 0 and kept[-1] == STEPS and len(kept) <= 12, kept
    assert [image.step for image in images] == kept, [image.step for image in images]
    for image in images:
        png = (out / 'previews' / f'{image.step:06d}.png').read_bytes()
        assert image.encoded_image_string == png
        assert (image.width, image.height) == struct.unpack('>2I', png[16:24])


if len(sys.argv) < 2:
    go_on_with_tensorboard()
with tempfile.TemporaryDirectory() as name:
    write_data(pathlib.Path(name))
    words = 'TensorBoard reads a run that was killed and resumed: each step once, scalars and pictures'
    try:
        check(run(pathlib.Path(name)))
        print(f'1..1\nok 1 - {words}')
    except Exception as error:  # noqa: BLE001: whatever it is, the test has failed
        print(f'1..1\nnot ok 1 - {words}\n# {type(error).__name__}: {error}')
        sys.exit(1)
