"""A folder of photographs and its manifest: checked row by row, and read in advance."""
