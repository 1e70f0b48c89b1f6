"""HTTP in: the endpoints of one gateway on raw ASGI, who may use them, and the process that listens."""

from .access import Access
from .app import App
from .pages import Observer, Pages
from .paths import ENDPOINTS, Endpoint
from .serve import Server, bind, run, url_of

__all__ = ["ENDPOINTS", "Access", "App", "Endpoint", "Observer", "Pages", "Server", "bind", "run", "url_of"]
