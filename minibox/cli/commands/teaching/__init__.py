"""Commands for learning and teaching: labs, and what shows how containers work. Logic belongs in the doors and the engine."""
