"""The project's workflows: `./orchestrate.sh NAME`, which runs `python -m workflows NAME`."""
