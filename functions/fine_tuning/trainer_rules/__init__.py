"""Options that the trainer refuses together, ignores without others, or takes although nobody means them.

Each rule was read in the trainer's own checks: sd-scripts 2e0fcc5 (kohya_ss v25.2.2) and kohya_ss v22.6.2,
library/train_util.py (verify_training_args, get_optimizer, get_scheduler_fix, BaseDataset), train_network.py,
sdxl_train_network.py, library/sdxl_train_util.py, networks/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fine_tuning import options
from fine_tuning.findings import Finding, error, warning
from fine_tuning.trainer_rules.contradictions import CONTRADICTIONS, OLDER_RULES
from fine_tuning.trainer_rules.facts import Values, first, takers
from fine_tuning.trainer_rules.rule import Rule
from fine_tuning.trainer_rules.to_no_good import HARMFUL
from fine_tuning.trainer_rules.without_effect import IGNORED

__all__ = ["OLDER_RULES", "RULES", "Rule", "first", "judge", "takers"]

RULES: tuple[Rule, ...] = (*CONTRADICTIONS, *IGNORED, *HARMFUL)


def judge(values: Values, written: Mapping[str, str], kohya_version: str) -> Iterator[Finding]:
    """Findings of a resolved configuration.

    Args:
        written: option → the file in which a user set it. What only a preset says is not the user's fault.
    """
    table = options.table(kohya_version)
    # The graphical interface writes every default; what does nothing and says nothing else than one misleads nobody.
    spelt_out = {name for name in written if name in table and values.get(name) == table[name].default}
    for rule in RULES + (OLDER_RULES if options.is_older(kohya_version) else ()):
        silent = spelt_out if rule.code == "options-ignored" else ()
        named = [name for name in rule.options if name in written and name not in silent]
        if named and rule.broken(values):
            make = error if rule.code == "options-contradict" else warning
            yield make(rule.code, written[named[0]], rule.message, rule.remedy)
