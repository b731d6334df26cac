"""What is made of detections: pictures, files, tables. Nothing here computes a score."""
