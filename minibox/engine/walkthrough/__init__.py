"""`minibox explain --step`: a real start that stops before each step, what has changed meanwhile, and a shell beside it.
The stops themselves are steps of the Plan, in `minibox.plan.stops`.
"""
