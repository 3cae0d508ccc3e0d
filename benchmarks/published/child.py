"""The parent's end of `side.py`: start a side, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

SIDE = Path(__file__).with_name("side.py")
ROOT = Path(__file__).parents[2]


class Child:
    """A running side; a context manager that ends it."""

    def __init__(self, side: str, python: str, folder: Path, threads: int) -> None:
        """Start `side` ("ours" or "published") with an interpreter; `folder` has the inputs.

        Raises:
            ChildError: it ended before it was ready.
        """
        # -I: neither the current folder nor PYTHONPATH may decide which `legrad` this is.
        command = [python, "-I", str(SIDE), side, str(folder), str(threads)]
        self.side = side
        self._errors = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                [*command, str(ROOT)] if side == "ours" else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise ChildError(f"cannot start the {side} side with {python}: {error}") from error
        try:
            self.hello = self._reply()
            check_place(side, Path(self.hello["legrad"]))
        except BaseException:
            self.close()
            raise

    def ask(
        self,
        form: str,
        layers: int,
        prompts: int,
        *,
        images: int = 1,
        chunk: int = 1 << 30,
        measure: str = "time",
    ) -> dict[str, Any]:
        """Measure "time" or "memory" of one run, or save its maps at the path `measure`."""
        request = {
            "form": form,
            "layers": layers,
            "prompts": prompts,
            "images": images,
            "chunk": chunk,
            "measure": measure,
        }
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._reply()

    def close(self) -> None:
        """Let the child finish; one that does not is killed."""
        assert self._process.stdin is not None
        try:
            # A child that has ended already does not read what is still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._errors.close()

    def __enter__(self) -> Child:
        """The child itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _ended(self) -> ChildError:
        code = self._process.wait(timeout=10)
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-5:]
        return ChildError("\n".join([f"the {self.side} side ended with exit code {code}:", *last]))


def check_place(side: str, package: Path) -> None:
    """Ours must be this repository's; a side has looked at what is in its package itself.

    Raises:
        ChildError: it is not, or the published side has imported ours.
    """
    is_ours = package.resolve() == ROOT / "legrad" / "__init__.py"
    if is_ours != (side == "ours"):
        raise ChildError(f"the {side} side imported {package}")


class ChildError(RuntimeError):
    """A side could not be started, imported the wrong package, or ended early."""
