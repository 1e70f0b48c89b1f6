"""What tests share: virtual time, and calling ASGI applications without a server."""
