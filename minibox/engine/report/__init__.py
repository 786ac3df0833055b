"""What users are told: `ps`, `inspect`, `stats`, `why`, `info`, `doctor`, `explain`. Changes nothing."""
