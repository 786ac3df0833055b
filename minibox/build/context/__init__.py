"""The files that a build reads: contexts, ignore patterns, the sources of COPY and ADD, and digests of content. What the
lines of a Dockerfile mean belongs in `minibox.build.dockerfile`; writing the files into a layer belongs to the steps."""
