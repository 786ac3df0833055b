"""System call filters: the default profile, a user's profile, and their compilation by libseccomp."""
