"""What becomes of detections: resumable runs, journals and tables. Nothing here computes a score."""
