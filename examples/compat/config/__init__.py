"""The import path of the smart-client toolkit's settings; see `settings`."""
