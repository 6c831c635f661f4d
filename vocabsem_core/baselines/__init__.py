"""What the method is compared with: probes, neighbors, demonstrations."""
