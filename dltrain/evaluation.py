"""What predictions are worth, in numpy: formulas of a few lines, each with its source."""

from typing import Any

import numpy as np

__all__ = [
    "balanced_accuracy",
    "calibration",
    "classification",
    "confusion_matrix",
    "of_classes",
    "regression",
    "top_k_accuracy",
    "worst_mistakes",
]

Numbers = dict[str, float | None]
BINS, TOP = 15, 5


def classification(probabilities: np.ndarray, targets: np.ndarray) -> Numbers:
    """The numbers over all classes, of probabilities (N, classes) and classes (N,); top-5 where there are so many."""
    count = probabilities.shape[1]
    confusion = confusion_matrix(targets, probabilities.argmax(1), num_classes=count)
    top = {f"top{TOP}_accuracy": top_k_accuracy(probabilities, targets, k=TOP)} if count > TOP else {}
    error, _ = calibration(probabilities, targets)
    return {**top, "balanced_accuracy": balanced_accuracy(confusion), "expected_calibration_error": error}


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Counts int64 (classes, classes): rows are the true classes, columns the predicted ones."""
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def of_classes(confusion: np.ndarray) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and support of each class; null where one would be 0 / 0.

    Precision is TP / (TP + FP), recall TP / (TP + FN), F1 their harmonic mean 2 TP / (2 TP + FP + FN).
    """
    right, predicted, support = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return [
        {
            "precision": _ratio(hits, named),
            "recall": _ratio(hits, there),
            "f1": _ratio(2 * hits, named + there),
            "support": int(there),
        }
        for hits, named, there in zip(right, predicted, support, strict=True)
    ]


def balanced_accuracy(confusion: np.ndarray) -> float:
    """The mean recall of the classes that have examples. Source: Brodersen et al. 2010."""
    support = confusion.sum(1)
    there = support > 0
    return float((confusion.diagonal()[there] / support[there]).mean())


def top_k_accuracy(probabilities: np.ndarray, targets: np.ndarray, *, k: int) -> float:
    """The share of examples whose class is among the k most probable; of equal ones the first counts."""
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((top == targets[:, None]).any(1).mean())


def calibration(
    probabilities: np.ndarray, targets: np.ndarray, *, bins: int = BINS
) -> tuple[float, list[dict[str, Any]]]:
    """The expected calibration error, and the bins it is over: upper edge, count, mean confidence, accuracy.

    ECE = sum over bins of (examples in it / N) |accuracy - mean confidence|, where the confidence is the probability
    of the predicted class and the bins ((m - 1) / M, m / M] are of equal width; empty ones are null.
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3, after Naeini et al. 2015.
    """
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == targets
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts, hits, sums = (
        np.bincount(places, weights, minlength=bins) for weights in (np.ones(len(targets)), right, confidence)
    )
    error = np.abs(hits - sums).sum() / len(targets)
    told = [
        {
            "to": (place + 1) / bins,
            "count": int(count),
            "confidence": _ratio(sums[place], count),
            "accuracy": _ratio(hits[place], count),
        }
        for place, count in enumerate(counts)
    ]
    return float(error), told


def worst_mistakes(predictions: np.ndarray, targets: np.ndarray, losses: np.ndarray, *, most: int) -> np.ndarray:
    """The indices of the wrong predictions of the highest losses, the highest first."""
    wrong = np.flatnonzero(predictions != targets)
    return wrong[np.argsort(-losses[wrong], kind="stable")[:most]]


def regression(outputs: np.ndarray, targets: np.ndarray) -> Numbers:
    """Errors of outputs (N, outputs) in the unit of the targets, means over all entries.

    R^2 is 1 - sum of squared errors / sum of squares about the mean, a mean over the outputs; null where targets do
    not vary.
    """
    errors = outputs.astype(np.float64) - targets
    spread = ((targets - targets.mean(0, dtype=np.float64)) ** 2).sum(0)
    r2 = float((1 - (errors**2).sum(0) / spread).mean()) if (spread > 0).all() else None
    return {"mse": float((errors**2).mean()), "mae": float(np.abs(errors).mean()), "r2": r2}


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
