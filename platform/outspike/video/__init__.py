"""Video files: probing, decoding on the frame-exact time base, and writing."""
