"""Language-model services: one client with cache, budget and retries, for captions and judges."""
