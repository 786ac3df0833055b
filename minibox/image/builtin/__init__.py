"""The images that minibox makes itself, without a registry. The recipes are in `rootfs/`."""
