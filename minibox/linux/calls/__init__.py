"""System calls one by one, for lessons: `minibox.linux.unshare` and the like, whose errors say in words what the kernel
wants. minibox itself makes its containers in C (`native/child`).
"""
