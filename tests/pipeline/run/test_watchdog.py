"""The end of a process whose work stands still, whatever it hangs in."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(body: str, patience: float = 0.5) -> subprocess.CompletedProcess[str]:
    """Run a program that has a `watchdog`."""
    program = "import re, threading, time\nfrom pipeline.run.watchdog import Watchdog\n"
    program += f"watchdog = Watchdog({patience})\n" + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


HANGS = {
    "a sleep": "time.sleep(60)",
    "a lock": "threading.Lock().acquire(); lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "the interpreter held by C code": "re.match(r'(a+)+$', 'a' * 60 + 'b')",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS.keys())
def test_a_hang_ends_the_process_and_leaves_a_trace(hang: str) -> None:
    ended = run(f"""
        def stuck():
            {hang}
        with watchdog.watch() as alive:
            stuck()
        print("went on")
    """)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr and "in stuck" in ended.stderr
    assert ended.stdout == ""


def test_a_hang_is_seen_although_other_work_goes_on() -> None:
    ended = run("""
        def busy():
            with watchdog.watch() as alive:
                while True:
                    time.sleep(0.05)
                    alive()
        threading.Thread(target=busy, daemon=True).start()
        with watchdog.watch():
            time.sleep(60)
    """)
    assert ended.returncode == 1


def test_work_that_shows_signs_of_life_may_take_its_time() -> None:
    ended = run(
        """
        with watchdog.watch() as first:
            with watchdog.watch() as second:
                for _ in range(35):
                    time.sleep(0.1)
                    first()
                    second()
        time.sleep(3.2)  # nothing is watched
        print("done")
        """,
        patience=3.0,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    """The whole worker, with an explainer that stops in the middle of a shard."""
    program = """
        import sys
        from pathlib import Path
        from legrad import HeatOrder
        from pipeline.config import AnnotateConfig, ExecutionConfig
        from pipeline.demo.run import SHARDS
        from pipeline.inputs.shards import find_shards
        from pipeline.run.queue import Trial
        from pipeline.run.worker import Worker

        class Hanging:
            device, embed_width = None, 0
            heat_order = HeatOrder.UPSAMPLE_NORMALISE
            def squash(self, pixels):
                return pixels[:, :8, :8]
            def has_prompts(self, sample):
                return True
            def __call__(self, samples):
                time.sleep(600)

        engine = ExecutionConfig(executor="local", threads=1, stall_seconds=1.5)
        config = AnnotateConfig(output=sys.argv[1], engine=engine)
        worker = Worker(config, lambda _: Hanging())
        worker.try_shard(Trial(find_shards([str(SHARDS)])[0]), print)
    """
    started = time.monotonic()
    program = "import time\n" + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert "in try_shard" in ended.stderr
    assert time.monotonic() - started < 100
    assert not (tmp_path / "out").exists()
