"""A process of ours whose interpreter runs a test's own lines first.

For what no setting reaches in a real daemon: limits that a busy machine cannot keep, and moments
that are over before a test can look.
"""

import os
import textwrap
from pathlib import Path

#: What is wrong in a ``sitecustomize`` is one line on standard error, and then forgotten.
_LAST = """
except BaseException:
    import os, traceback
    traceback.print_exc()
    os._exit(70)
"""


def at_start(folder: Path, code: str) -> dict[str, str]:
    """Give the environment of a process that runs some lines before its program.

    Args:
        folder: Where the lines are kept; nothing else of Python's may be there.
        code: The lines. The processes that it starts run them too; one in which they fail ends.
    """
    lines = textwrap.indent(textwrap.dedent(code).strip(), "    ")
    (folder / "sitecustomize.py").write_text(f"try:\n{lines}{_LAST}", "utf-8")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
