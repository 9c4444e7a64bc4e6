"""PET partial volume correction: what the configs of the bundle call, its evaluation, its report."""
