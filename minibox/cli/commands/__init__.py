"""The commands, a module for each group: read the options, call the engine once, print the result. What several
commands share belongs in `minibox.cli`.
"""
