"""`rpat sweep`."""

from rpat_cli.cli import sweep_options as options
from rpat_cli.recipe.trust import trusting
from rpat_cli.signals import importing


def sweep(
    name: options.SweepName,
    out: options.OutFolder = None,
    engine: options.EngineName = None,
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    cost: options.Cost = False,
    retry_failed: options.RetryFailed = 0,
    max_failures: options.MaxFailures = None,
    assign: options.Assignments = None,
    plugin: options.Plugins = None,
    trust: options.Trust = False,
    track: options.Track = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Train every combination of a sweep file over several seeds, and compare them in a table with
    error bars.

    Run the same command again to resume: finished trials are kept, stopped ones
    continue from their checkpoints, failed ones are tried again. With further
    axes, values or seeds in the file, only the new trials are run. A section
    `search` in the file stops the worse combinations early (asha), or lets
    Optuna choose them (optuna).

    Examples:

      rpat sweep fashion-mini-methods --dry-run --cost

      rpat sweep my-sweep.yaml --jobs 4

      rpat sweep my-sweep.yaml --engine slurm --set data.root=/data

      rpat sweep my-sweep.yaml --retry-failed 1 --max-failures 3
    """
    with importing():
        from rpat_cli.cli import sweep_session  # imports torch, which `rpat --help` must not

    with trusting(everything=trust, files=plugin or []):
        sweep_session.sweep(
            name=name,
            out=out,
            engine=engine,
            jobs=jobs,
            dry_run=dry_run,
            cost=cost,
            retries=retry_failed,
            max_failures=max_failures,
            assignments=assign or [],
            track=track or [],
            quiet=quiet,
            as_json=as_json,
        )
