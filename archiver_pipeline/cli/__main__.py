"""`python -m archiver_pipeline.cli`: the `archiver` command from a checkout."""

from archiver_pipeline.cli.main import main

if __name__ == "__main__":
    main()
