"""Makes the web servers of a node under test write access logs, which a node never does: tests read the URLs there.

On the import path of every process of such a node by way of PYTHONPATH.
"""

from __future__ import annotations

from typing import Any

import granian

_Granian = granian.Granian


def _with_access_log(*arguments: Any, **settings: Any) -> Any:
    settings.pop("log_level", None)  # access lines are at level "info"
    return _Granian(
        *arguments, log_access=True, log_access_format="access %(method)s %(path)s?%(query_string)s", **settings
    )


granian.Granian = _with_access_log  # type: ignore[misc, assignment]
