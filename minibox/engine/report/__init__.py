"""What users are shown: `ps`, `inspect`, `stats`, `why`, `info`, `doctor`, `explain`. Read only."""
