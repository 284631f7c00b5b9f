"""What a latent is: the labels its activation follows, and the direction its decoder writes."""
