"""The command line `minibox`: arguments, options, completion and messages. The commands are in `commands`, how results
look is in `format`, and logic belongs in the engine.
"""
