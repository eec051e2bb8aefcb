"""starlette's parser of forms, for clients that send a file name beyond ASCII as ``filename*``.

Python's requests with urllib3 before 1.25 sends no ``filename`` then, although RFC 7578 (4.2)
requires one. python-multipart leaves ``filename*`` out, so that starlette takes the file for a text
field. This relies on a private attribute of starlette, whose version pyproject.toml bounds;
tests/gateway/web/test_form_parser.py fails if that has changed.
"""

from __future__ import annotations

from starlette.formparsers import MultiPartParser


class FormParser(MultiPartParser):
    """Takes ``filename*`` for ``filename``: only that a part has a name counts, not which."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = part.content_disposition.replace(b"filename*=", b"filename=")
        super().on_headers_finished()
