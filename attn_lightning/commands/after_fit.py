"""What follows the training of a run: the test of its best epoch, the linear control, the suite of evaluation."""

from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer

from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.commands.report import report_in_place
from attn_lightning.commands.wandb_run import log_evaluation
from attn_lightning.console import stdout_console
from attn_lightning.evaluation.catalog import chosen_explainers, chosen_families
from attn_lightning.evaluation.results import print_results, write_results
from attn_lightning.evaluation.runner import TABLES, EvaluatedModel, EvaluationOptions, evaluate
from attn_lightning.evaluation.suite import Plan
from attn_lightning.evaluation.summary import Summary
from attn_lightning.files import file_digest
from attn_lightning.module import AttentionModule


class AfterFit:
    """Finishes a run whose training has ended.

    Args:
        trainer: that trained.
        module: that was trained.
        data: on this.
        record: where the results go.
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
        """Do all that the options ask for, and show what was found."""
        summary = self._measure()
        if self.trainer.is_global_zero:
            folder, record = self.record.folder, self.record.record
            if (results := write_results(folder, record)) is not None:
                self.tables.insert(0, results)
            print_results(folder, record, summary, tables=self.tables, verbose=self.options.verbose)
            if self.options.report:
                report_in_place(folder, figures=False)

    def _measure(self) -> Summary | None:
        """Test and evaluate; gives what the suite found, None without one."""
        options = self.options
        if options.test and not self._has_test_split():
            print("this data has no test split, so nothing is tested", flush=True)
        elif options.test:
            self.trainer.test(self.module, datamodule=self.data, ckpt_path=self._tested(), verbose=False)
            if options.control:
                self.record.add_control(self.trainer, self.module)
        if options.test and self._has_test_split() and options.suite != "none":
            return self._evaluate()
        return None

    def _has_test_split(self) -> bool:
        manifest = getattr(self.data, "manifest", None)
        return manifest is None or "test" in manifest["splits"]

    @property
    def _best(self) -> str:
        return getattr(self.trainer.checkpoint_callback, "best_model_path", "") or ""

    def _tested(self) -> str | None:
        """What is tested after the training: the best epoch, or the weights as they are where none was measured."""
        if not self._best and self.trainer.is_global_zero:
            print(f"no epoch has {self.options.monitor}, the last weights are tested", flush=True)
        return self._best or None

    def _evaluate(self) -> Summary | None:
        """Run the suite on the first process; nothing in it talks to the others."""
        if not self.trainer.is_global_zero or not self._best or not hasattr(self.data, "examples"):
            return None
        options, best = self.options, Path(self._best)
        plan = Plan(chosen_families(options.suite), chosen_explainers(options.suite_explainers))
        module = self.module.to(self.trainer.strategy.root_device)
        summary, folder = evaluate(
            EvaluatedModel(module, self.data, file_digest(best), best.stem),
            plan,
            EvaluationOptions(
                max_examples=options.suite_examples, linear=options.control, untrained=options.suite_untrained
            ),
            self.record.folder / "evaluation",
            stdout_console(),
            quiet=not options.verbose,
        )
        self.record.add_evaluation(self.trainer, module, summary.flat())
        log_evaluation(self.trainer, self.record.record["evaluation"])
        self.tables.append(folder / TABLES)
        return summary
