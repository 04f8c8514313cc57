"""What studies the method and is no part of using it: see docs/explanation/architecture.md."""
