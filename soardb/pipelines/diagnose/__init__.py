"""What an ensemble gets wrong always, and what it is unsure of: bias and variance of each sample.

run.py            run(Ensemble, DiagnoseConfig) -> Diagnosis
ensemble.py       replicas' probabilities or logits, and the labels
source.py         ensembles of models, of classifiers, of networks trained on stored points
language.py       ensembles of language models of a registry, over a closed set of answers
files.py          ensembles in files and Arrow tables
training.py       many small networks trained at once
replicas.py       what they predict, of samples that they did not see
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
from soardb.pipelines.diagnose.files import of_arrow, of_file, to_arrow, to_file
from soardb.pipelines.diagnose.fit import Fit, fit_line
from soardb.pipelines.diagnose.language import of_language_models
from soardb.pipelines.diagnose.replicas import Replicas, cross_fit
from soardb.pipelines.diagnose.run import DiagnoseConfig, Diagnosis, run
from soardb.pipelines.diagnose.source import of_collection, of_estimators, of_models
from soardb.pipelines.diagnose.training import RANDOMNESS, TrainConfig

__all__ = [
    "ESTIMATORS",
    "RANDOMNESS",
    "Calibration",
    "Collapse",
    "CollapseConfig",
    "Cone",
    "Decomposition",
    "DiagnoseConfig",
    "Diagnosis",
    "Ensemble",
    "Fit",
    "Replicas",
    "TrainConfig",
    "binary",
    "calibration_of",
    "cone_of",
    "cross_fit",
    "fit_line",
    "kl",
    "of_arrow",
    "of_collection",
    "of_estimators",
    "of_file",
    "of_language_models",
    "of_models",
    "run",
    "simulate",
    "squared",
    "to_arrow",
    "to_file",
]
