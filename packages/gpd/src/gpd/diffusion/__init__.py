"""The diffusion model over rows of parameters: tokens, denoisers, schedules, objectives and samplers."""
