"""What latents do, image by image (`pooling`, `effects`), and which are named (`lists`, `search`)."""
