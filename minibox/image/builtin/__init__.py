"""The images that minibox makes itself."""
