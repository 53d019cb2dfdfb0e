"""The `.plic` format and the desktop reference codec."""
