"""Short programs that end in a picture or a video."""
