"""Memory of the steps `head` and `basis` on a large head: 128,256 x 4,096 in bfloat16, beside another large tensor."""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing
import os
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

from tests.benchmarks.common import MIB, Case, anonymous_bytes, peak_anonymous

ROWS, WIDTH = 128_256, 4_096  # the head of Llama 3 8B
LIMIT = 1.5e9  # bytes of anonymous memory
_HEAD, _OTHER = "lm_head.weight", "model.embed_tokens.weight"


def cases() -> Iterator[Case]:
    """Peak anonymous memory; bytes of another tensor that were read."""
    with TemporaryDirectory() as folder:
        place = write_model(Path(folder) / "model", ROWS, WIDTH)
        _forget(place)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            before, peak, wall = child.submit(fill, Path(folder), ROWS).result()
        head, other = (_resident(place, name) for name in (_HEAD, _OTHER))
        ahead = _read_ahead(place)
    shape = f"{ROWS:,} x {WIDTH:,} bfloat16 head ({2 * ROWS * WIDTH / 1e9:.2f} GB)"
    detail = (
        f"peak {peak / 1e9:.2f} GB of anonymous memory (RssAnon, looked at every 2 ms in a child process; "
        f"{before / 1e9:.2f} GB of it imports) for the steps head and basis on a {shape}, {wall:.0f} s"
    )
    yield Case("basis", "memory of a large head", LIMIT / peak, 1.0, detail)
    if head < ROWS * WIDTH:  # half of its bytes: the kernel does not show what was read
        raise OSError(f"mincore shows {head:,} bytes of the head in the page cache; expected {2 * ROWS * WIDTH:,}")
    allowed = 2 * ahead + MIB
    detail = (
        f"{other / MIB:.1f} MiB of the other tensor ({2 * ROWS * WIDTH / MIB:.0f} MiB) were in the page cache "
        f"afterwards, {head / MIB:.0f} MiB of the head; allowed {allowed / MIB:.0f}: the system itself reads "
        f"{ahead / MIB:.0f} MiB beyond what is asked for, here after the file's header and before the head. The cache "
        "was emptied of the file before (fadvise); mapped and plain reads both pass through it, so that mincore sees "
        "every page that was read."
    )
    yield Case("basis", "no other tensor read", allowed / max(other, 4096), 1.0, detail)


def write_model(folder: Path, v: int, d: int) -> Path:
    """A model folder with an untied head of random bfloat16 weights, written 1,024 rows at a time; its weight file.

    The other tensor lies before the head and is a hole in the file: it costs no disk, and is read as zeros.
    """
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": v,
        "hidden_size": d,
        "intermediate_size": 2 * d,
        "num_hidden_layers": 1,
        "num_attention_heads": d // 16,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    size = 2 * v * d
    places = {_OTHER: [0, size], _HEAD: [size, 2 * size]}
    header = json.dumps(
        {n: {"dtype": "BF16", "shape": [v, d], "data_offsets": at} for n, at in places.items()}
    ).encode()
    header += b" " * (-len(header) % 8)
    generator = torch.Generator().manual_seed(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(size, os.SEEK_CUR)
        for start in range(0, v, 1024):
            rows = torch.randn(min(1024, v - start), d, generator=generator).to(torch.bfloat16)
            file.write(rows.view(torch.uint8).numpy().data)
    return folder / "model.safetensors"


def fill(folder: Path, rows: int) -> tuple[int, int, float]:
    """Run the steps head and basis on `folder`/model; anonymous bytes before and at the peak, and wall seconds."""
    import transformers  # noqa: F401  imports are counted as they are: before

    from orchestration.execution.scheduler import InlineEngine, run_plan
    from orchestration.runs.plan import make_plan
    from orchestration.store.artifacts import open_store
    from workflows.inputs.models import stamp_of
    from workflows.steps.basis import basis_step
    from workflows.steps.model import head_step

    files = {"folder": str(folder / "model"), "stamp": stamp_of(folder / "model"), "content": {}}
    seen = {"name": "large", "head": "large", "kept_rows": rows}  # all that these two steps read of a model
    model: Any = SimpleNamespace(**seen, width=0, files=files, paths=())
    store, step = open_store(folder / "store"), basis_step(model.name, head_step(model))
    outcomes: dict = {}

    def work() -> None:
        engine = InlineEngine(store, lambda *_: None)
        outcomes.update(run_plan(make_plan([step], store), lambda: engine, lambda *_: None))

    before, started = anonymous_bytes(), time.perf_counter()
    peak = peak_anonymous(work)
    if failed := [outcome.error for outcome in outcomes.values() if outcome.state != "ran"]:
        raise RuntimeError(failed[0])
    return before, peak, time.perf_counter() - started


def _forget(path: Path) -> None:
    """Drop a file's pages from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_ahead(path: Path) -> int:
    """Bytes that the system reads ahead of or around a read of this file."""
    device = path.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return int(setting.read_text()) * 1024 if setting.is_file() else 128 * 1024  # the kernel's default


def _resident(path: Path, tensor: str) -> int:
    """Bytes of a tensor's whole pages that are in the page cache."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        first, last = json.loads(file.read(length))[tensor]["data_offsets"]
        start, end = -(-(8 + length + first) // mmap.PAGESIZE), (8 + length + last) // mmap.PAGESIZE
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            base = ctypes.addressof(view := ctypes.c_char.from_buffer(mapped))
            pages = (ctypes.c_ubyte * (end - start))()
            libc = ctypes.CDLL(None, use_errno=True)
            length = ctypes.c_size_t((end - start) * mmap.PAGESIZE)
            failed = libc.mincore(ctypes.c_void_p(base + start * mmap.PAGESIZE), length, pages)
            del view  # or the mapping cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE
