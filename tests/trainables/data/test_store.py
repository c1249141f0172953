import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.datasets import make_dataset
from trainables.data.store import MANIFEST, FeatureStore, content_key
from trainables.errors import DataError


def counted(folder):
    """A builder that leaves a file for every call."""

    def build():
        (folder / f"call-{time.monotonic_ns()}").touch()
        time.sleep(0.2)
        return {"x": np.arange(10.0), "y": np.ones((3, 2), dtype=np.float32)}

    return build


def n_calls(folder):
    return len(list(folder.glob("call-*")))


def open_store(root, calls, ready, total):
    ready.wait()
    total.put(float(FeatureStore(root).get("k", counted(calls))["x"].sum()))


def test_an_entry_is_built_once_and_mapped_read_only(tmp_path):
    first = FeatureStore(tmp_path / "store").get("k", counted(tmp_path), {"schema": "24"})
    again = FeatureStore(tmp_path / "store").get("k", counted(tmp_path))
    assert n_calls(tmp_path) == 1
    assert isinstance(again["x"], np.memmap)
    np.testing.assert_array_equal(first["x"], np.arange(10.0))
    assert again["y"].dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        again["x"][0] = 1.0


def test_two_processes_that_ask_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, total = context.Barrier(2), context.Queue()
    workers = [context.Process(target=open_store, args=(tmp_path / "store", tmp_path, ready, total)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [total.get(timeout=60) for _ in workers] == [45.0, 45.0]
    for worker in workers:
        worker.join()
    assert n_calls(tmp_path) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "no array", "no manifest", "bad manifest"])
def test_a_damaged_entry_is_built_again(tmp_path, damage):
    FeatureStore(tmp_path / "store").get("k", counted(tmp_path))
    array, manifest = tmp_path / "store/k/x.npy", tmp_path / "store/k" / MANIFEST
    content = bytearray(array.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        array.write_bytes(content)
    elif damage == "cut":
        array.write_bytes(content[:-8])
    elif damage == "no array":
        array.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text('{"arrays"')
    np.testing.assert_array_equal(FeatureStore(tmp_path / "store").get("k", counted(tmp_path))["x"], np.arange(10.0))
    assert n_calls(tmp_path) == 2


def test_a_builder_that_fails_leaves_nothing_and_may_try_again(tmp_path):
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(ZeroDivisionError):
        store.get("k", lambda: {"x": np.array([1 // 0])})
    with pytest.raises(ValueError, match="array: expected letters"):
        store.get("k", lambda: {"../x": np.zeros(1)})
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["k.lock"]
    assert store.get("k", counted(tmp_path))["x"][3] == 3.0


@pytest.mark.parametrize("key", ["", "../k", ".k", "a/b", "k" * 129])
def test_a_key_that_is_no_file_name_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="key: expected letters"):
        FeatureStore(tmp_path).get(key, dict)


def test_a_dataset_comes_back_as_it_was(tmp_path):
    made = make_dataset(20)
    back = FeatureStore(tmp_path).dataset("d", lambda: made)
    for name in ("known_time", "features", "targets", "label_end", "usable", "segment"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
        assert getattr(back, name).dtype == getattr(made, name).dtype
    assert (back.feature_names, back.target_names, dict(back.marks), back.snapshot) == (("a", "b"), ("y",), {}, "test")


def test_a_content_key_depends_on_names_and_values_only():
    assert content_key(a=1, b=(2, 3)) == content_key(b=[2, 3], a=1)
    assert len({content_key(a=1), content_key(a=2), content_key(b=1)}) == 3


READ_ALL = """
import sys
from pathlib import Path
from trainables.data.store import FeatureStore
store = FeatureStore(Path(sys.argv[1]))
def private_kib():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
before = private_kib()
x = store.get("k", lambda: 1 / 0)["x"]
total = float(x.sum())
print("ready", flush=True)
sys.stdin.readline()
inode = Path(sys.argv[1], "k", "x.npy").stat().st_ino
mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("x.npy")]
print(total, private_kib() - before, inode, *{line.split()[4] for line in mapped}, flush=True)
sys.stdin.readline()
"""


@pytest.mark.requirement("CLUSTER-5")
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_two_trials_on_a_node_share_one_copy_of_the_data(tmp_path):
    n_mib = 64
    FeatureStore(tmp_path).get("k", lambda: {"x": np.ones((n_mib * 2**18 // 16, 16), dtype=np.float32)})
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READ_ALL, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )
        for _ in range(2)
    ]  # fmt: skip
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"
    for reader in readers:
        reader.stdin.write("\n")
        reader.stdin.flush()
    answers = [reader.stdout.readline() for reader in readers]
    for reader in readers:
        reader.communicate("\n")
    for answer in answers:
        total, private_kib, inode, *mapped = answer.split()
        assert float(total) == n_mib * 2**18
        assert float(private_kib) < 0.05 * n_mib * 1024
        assert mapped == [inode]


@pytest.mark.requirement("DATA-29")
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("f.a", "f.b", "f.c"), r"missing: f\.c; unknown: none"),
        (("f.a", "f.c"), r"missing: f\.c; unknown: f\.b"),
        (("f.b", "f.a"), "or another order"),
    ],
)
def test_an_entry_of_other_columns_is_refused(tmp_path, wanted, message):
    def described(*names):
        return {"columns": [{"name": name, "group": "g", "lookback": 1} for name in names]}

    def build():
        return {"features": np.ones((3, 2), dtype=np.float32)}

    store = FeatureStore(tmp_path)
    for _ in range(2):
        store.get("k", build, described("f.a", "f.b"))
    with pytest.raises(DataError, match=message):
        store.get("k", build, described(*wanted))
    with pytest.raises(DataError, match="expected 3 feature columns, found 2"):
        store.get("three", build, described("f.a", "f.b", "f.c"))
