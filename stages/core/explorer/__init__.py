"""The explorer: what the page of `stages/studies/explore.py` shows, computed with the functions of the stages."""
