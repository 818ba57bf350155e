"""What an ensemble gets wrong always, and what it is unsure of: bias and variance of each sample.

run.py            run(Ensemble, DiagnoseConfig) -> Diagnosis
ensemble.py       replicas' probabilities or logits, and the labels; source.py reads them
decomposition.py  risk = bias + variance, squared and KL, of each sample
fit.py            lines through log variance over log bias, with intervals
stability.py      the same from disjoint replicas, and from fewer of them
cone.py           how large variance is beside bias
calibration.py    ECE, disagreement beside error, the identity between them
collapse.py       what neural collapse predicts, simulated
plot.py           pictures of a diagnosis
"""

from soardb.pipelines.diagnose.calibration import Calibration, calibration_of
from soardb.pipelines.diagnose.collapse import Collapse, CollapseConfig, binary, simulate
from soardb.pipelines.diagnose.cone import Cone, cone_of
from soardb.pipelines.diagnose.decomposition import ESTIMATORS, Decomposition, kl, squared
from soardb.pipelines.diagnose.ensemble import Ensemble
from soardb.pipelines.diagnose.fit import Fit, fit_line
from soardb.pipelines.diagnose.run import DiagnoseConfig, Diagnosis, run
from soardb.pipelines.diagnose.source import of_file

__all__ = [
    "ESTIMATORS",
    "Calibration",
    "Collapse",
    "CollapseConfig",
    "Cone",
    "Decomposition",
    "DiagnoseConfig",
    "Diagnosis",
    "Ensemble",
    "Fit",
    "binary",
    "calibration_of",
    "cone_of",
    "fit_line",
    "kl",
    "of_file",
    "run",
    "simulate",
    "squared",
]
