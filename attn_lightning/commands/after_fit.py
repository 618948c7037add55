"""What follows the training of a run: the test of its best epoch, the linear control, the suite of evaluation."""

from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer

from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.commands.report import report_in_place
from attn_lightning.commands.wandb_run import log_evaluation
from attn_lightning.console import say, stdout_console
from attn_lightning.evaluation.catalog import chosen_explainers, chosen_families
from attn_lightning.evaluation.control import control_metrics, is_text
from attn_lightning.evaluation.results import print_results, write_results
from attn_lightning.evaluation.runner import TABLES, EvaluatedModel, EvaluationOptions, evaluate
from attn_lightning.evaluation.subject import weights_digest
from attn_lightning.evaluation.suite import Plan
from attn_lightning.evaluation.summary import Summary
from attn_lightning.files import file_digest
from attn_lightning.module import AttentionModule


def leave_group() -> None:
    """Close the connection between the processes of a job, when all have come here; nothing if there is none."""
    # First all come here: the group must not end while one process still gathers a metric.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class AfterFit:
    """Finishes a run whose training has ended, part by part; what an earlier call finished is not done again.

    Args:
        trainer: that trained.
        module: that was trained.
        data: on this.
        record: where the results go, and what is asked for.
        options: the run options.

    Attributes:
        tables: the files that it wrote for people.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: AttentionModule,
        data: LightningDataModule,
        record: RunRecord,
        options: Namespace,
    ) -> None:
        self.trainer, self.module, self.data, self.record, self.options = trainer, module, data, record, options
        self.tables: list[Path] = []

    def run(self) -> None:
        """Do what is asked for and not finished, and show what was found."""
        with self.record.recorded():
            summary = self._measure()
        if self.trainer.is_global_zero:
            folder, record = self.record.folder, self.record.record
            if (results := write_results(folder, record)) is not None:
                self.tables.insert(0, results)
            print_results(folder, record, summary, tables=self.tables, verbose=self.options.verbose)
            if self.options.report:
                # Without figures, which take longer to draw than a small run takes to train.
                report_in_place(folder, figures=False)

    def _measure(self) -> Summary | None:
        """Test and evaluate; gives what the suite found, None without one."""
        if self.record.asked and not self._has_test_split():
            say("this data has no test split, so nothing is tested")
            # Finished all the same, or a study would run the cell again for a test that cannot be.
            for part in self.record.asked:
                self.record.finish(part)
        if not self._best and self.trainer.is_global_zero and any(map(self.record.lacks, ("test", "suite"))):
            say(f"{self._why_none()}, so that the last weights are what is tested")
        if self.record.lacks("test"):
            self._test()
        # The test was the last work of all processes together.
        if not self._alone():
            return None
        if self.record.lacks("control"):
            self._control()
        return self._evaluate() if self.record.lacks("suite") else None

    def _has_test_split(self) -> bool:
        # A data module of somebody else has none; Lightning says what it lacks.
        manifest = getattr(self.data, "manifest", None)
        return manifest is None or "test" in manifest["splits"]

    @property
    def _best(self) -> str:
        return getattr(self.trainer.checkpoint_callback, "best_model_path", "") or ""

    def _why_none(self) -> str:
        """Why there is no best epoch."""
        if self.trainer.checkpoint_callback is None:
            return "no epoch is kept without checkpoints (`trainer.enable_checkpointing`)"
        every, ended = self.trainer.check_val_every_n_epoch or 1, self.trainer.current_epoch
        if ended < every:
            return f"no epoch was validated, as validation comes every {every} epochs and training ended after {ended}"
        return "no epoch was validated and kept as the best"

    def _test(self) -> None:
        """Test the best epoch, or the weights as they are where there is none."""
        self.trainer.test(self.module, datamodule=self.data, ckpt_path=self._best or None, verbose=False)
        self.record.finish("test")

    def _alone(self) -> bool:
        """Whether this process does the rest; the others are done.

        What follows is the work of one process. The connection to the others is closed before, because whatever waits
        for them (a metric that is computed, a cache that is filled) would wait for ever.
        """
        leave_group()
        return self.trainer.is_global_zero

    def _control(self) -> None:
        """What a linear model on TF-IDF features reaches on the same test split (text data only)."""
        found = None
        if is_text(self.data):
            found = {"tfidf_logistic_regression": control_metrics(self.data)}
        self.record.finish("control", control=found)

    def _evaluate(self) -> Summary | None:
        """The suite, by `family/explainer/metric[setting]`, of the weights that were tested; None without examples."""
        if not hasattr(self.data, "examples"):
            say(f"{type(self.data).__name__} has no `examples(split)`, so that the suite is left out")
            self.record.finish("suite")
            return None
        options = self.options
        plan = Plan(chosen_families(options.suite), chosen_explainers(options.suite_explainers))
        if self._best:
            best = Path(self._best)
            # A run that goes on after its test has the weights of its last epoch at this point.
            self.module.load_state_dict(read_checkpoint(best)["state_dict"])
            digest, name = file_digest(best), best.stem
        else:
            digest, name = weights_digest(self.module), "last"
        module = self.module.to(self.trainer.strategy.root_device).eval()
        summary, folder = evaluate(
            EvaluatedModel(module, self.data, digest, name),
            plan,
            EvaluationOptions(
                max_examples=options.suite_examples, linear=options.control, untrained=options.suite_untrained
            ),
            self.record.folder / "evaluation",
            stdout_console(),
            quiet=not options.verbose,
        )
        found = {f"evaluation/{name}": value for name, value in summary.flat().items()}
        self.record.finish("suite", evaluation=found)
        log_evaluation(self.trainer, found)
        self.tables.append(folder / TABLES)
        return summary
