"""The import path of the smart-client toolkit, for programs that are not to be touched: put this folder's parent on the
path, and `from llms import get_smart_client, get_client` is Keyturn's."""

from keyturn import get_client, get_smart_client

__all__ = ["get_client", "get_smart_client"]
