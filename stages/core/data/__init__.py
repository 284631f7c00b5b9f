"""The audit set on disk (`dataset`), and arrays of images in checked shards (`shards`)."""
