"""Other people's programs against ours."""
