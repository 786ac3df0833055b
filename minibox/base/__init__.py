"""What everything else stands on, and what imports nothing of minibox but `minibox.errors`: files that we keep, and their codec."""
