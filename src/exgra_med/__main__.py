"""`python -m exgra_med` is the same as `exgra-med`."""

from exgra_med.cli.main import run

if __name__ == "__main__":
    run()
