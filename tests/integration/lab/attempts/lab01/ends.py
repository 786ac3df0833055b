# missing: answer.py ended before it printed 'ready'
print("made it")
