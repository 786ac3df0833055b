"""`minibox lab`: lessons whose machine is a container, and which are checked from outside. Each lesson is a folder of
`labs`, read as data; what a check may look at is in `look`. See docs/labs.md.
"""
