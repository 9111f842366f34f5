"""The recurrent family of video prediction."""
