"""From an image and options to a running container, and to its end. Every module lies in one of the rooms; nothing here
prints, exits or parses a command line.

The rooms, from the top; each imports only those further down:

    report
    oci, upkeep
    container
    resources
    files
    process
    state, verdict
    spec
    host
"""
