"""System call filters: the default profile, a user's profile, and compiling them with libseccomp. Which of them a
container gets is decided in `minibox.engine.spec.security`.
"""
