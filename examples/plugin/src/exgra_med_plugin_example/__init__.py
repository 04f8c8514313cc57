"""What another package can add to exgra-med, each in one file."""
