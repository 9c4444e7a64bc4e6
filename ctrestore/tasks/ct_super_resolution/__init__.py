"""CT super-resolution: what the configs of the bundle call, its evaluation, its report."""
