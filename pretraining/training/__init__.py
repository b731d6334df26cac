"""Training: of the image tower, from DINOv2 to what ships, and of the methods that learn."""
