"""What a prepared folder holds: checks, overlap, numbers, and single records."""
