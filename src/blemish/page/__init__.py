"""The page that shows results: a self-contained HTML file, or the face of the service; plain HTML, CSS and JS."""

from blemish.page.build import (
    MAP_SIDE,
    PREVIEW_SIDE,
    Mode,
    PagePicture,
    PageSize,
    content_security_policy,
    make_preview,
    service_page,
    write_page,
)

__all__ = [
    "MAP_SIDE",
    "PREVIEW_SIDE",
    "Mode",
    "PagePicture",
    "PageSize",
    "content_security_policy",
    "make_preview",
    "service_page",
    "write_page",
]
