"""Low-dose CT denoising: what the configs of the bundle call, its evaluation, its report."""
