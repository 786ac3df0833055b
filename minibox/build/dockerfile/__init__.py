"""A Dockerfile as text: parse it into records, substitute variables, check it. Nothing here reads a file or an image.

`parser.parse` is the way in; the kinds of instructions are in `instructions`.
"""
