"""The reference figures for the metrics of the host, from scikit-learn.

    python metrics.py > metrics.json

Batches are of unequal size. Outputs are multiples of a quarter, so that they are exact in f32 and ties are common.
"""

import json
import sys
import warnings

import numpy
import sklearn
from sklearn import metrics

generator = numpy.random.default_rng(7)


def softmax(outputs):
    outputs = outputs.astype(numpy.float64)
    shifted = numpy.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def one_against_the_rest(outputs, targets, classes):
    """The mean over the classes that have both positive and negative samples."""
    if classes == 2:
        scores = outputs[:, -1] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
        return float(metrics.roc_auc_score(targets, scores)) if len(set(targets)) == 2 else None
    probabilities = softmax(outputs)
    sides = [(targets == index, probabilities[:, index]) for index in range(classes)]
    values = [metrics.roc_auc_score(side, scores) for side, scores in sides if side.any() and not side.all()]
    if len(set(targets)) == classes:
        # If every class occurs, this is scikit-learn's own mean.
        whole = metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
        assert abs(whole - numpy.mean(values)) < 1e-12
    return float(numpy.mean(values)) if values else None


def batches(*arrays, sizes):
    ends = numpy.cumsum(sizes)
    assert ends[-1] == len(arrays[0])
    return [[array[end - size : end].tolist() for array in arrays] for size, end in zip(sizes, ends)]


def averages(targets, predicted, average, ending, **options):
    options = {"average": average, "zero_division": 0, **options}
    functions = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
    return {name + ending: float(function(targets, predicted, **options)) for name, function in functions.items()}


def positive_classes(outputs, targets):
    """The numbers of each of two classes."""
    predicted = outputs.argmax(axis=1)
    expected = [averages(targets, predicted, "binary", "", pos_label=label) for label in (0, 1)]
    return {"batch": [outputs.tolist(), targets.tolist()], "expected": expected}


def classification(name, outputs, targets, sizes, classes, top=()):
    if outputs.shape[1] == 1:
        predicted = (outputs[:, 0] > 0).astype(int)
    else:
        predicted = outputs.argmax(axis=1)
    labels = list(range(classes))
    expected = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        **averages(targets, predicted, "binary" if classes == 2 else "macro", ""),
        **averages(targets, predicted, "macro", "_macro"),
        **averages(targets, predicted, "micro", "_micro"),
        **averages(targets, predicted, "weighted", "_weighted"),
        "auc": one_against_the_rest(outputs, targets, classes),
        "confusion_matrix": metrics.confusion_matrix(targets, predicted, labels=labels).ravel().tolist(),
    }
    for k in top:
        expected[f"top{k}_error"] = 1 - metrics.top_k_accuracy_score(targets, outputs, k=k, labels=labels)
    if outputs.shape[1] > 1:
        probabilities = numpy.exp(outputs - numpy.log(numpy.exp(outputs).sum(axis=1, keepdims=True)))
        expected["perplexity"] = numpy.exp(metrics.log_loss(targets, probabilities, labels=labels))
    return {
        "name": name,
        "classes": classes,
        "batches": batches(outputs, targets, sizes=sizes),
        "expected": {key: value if isinstance(value, list) or value is None else float(value) for key, value in expected.items()},
    }


def quarters(*shape):
    return generator.integers(-6, 7, shape) / 4


def regression(name, outputs, targets, sizes):
    # The values are f32; the sums are not.
    outputs, targets = outputs.astype(numpy.float64), targets.astype(numpy.float64)
    expected = {
        "mae": metrics.mean_absolute_error(targets, outputs),
        "rmse": metrics.root_mean_squared_error(targets, outputs),
        "r2": metrics.r2_score(targets, outputs),
    }
    return {
        "name": name,
        "batches": batches(outputs, targets, sizes=sizes),
        "expected": {key: float(value) for key, value in expected.items()},
    }


def main():
    warnings.simplefilter("ignore")
    sizes = [32, 32, 7, 1]
    count = sum(sizes)
    of_five = generator.integers(0, 5, count)
    absent = numpy.where(of_five == 3, 1, of_five)
    biased = quarters(count, 5)
    # Class 3 neither occurs nor is predicted.
    biased[:, 3] = -4
    predicted_only = quarters(count, 5)
    predicted_only[:5, 3] = 4
    of_two = generator.integers(0, 2, count)
    values = generator.normal(size=(count, 3)).round(3).astype(numpy.float32)
    near = (values + generator.normal(scale=0.3, size=values.shape).round(3)).astype(numpy.float32)
    constant = values.copy()
    constant[:, 1] = 0.5
    exact = near.copy()
    exact[:, 1] = 0.5
    # Far from zero, where sums of squares cancel.
    far = (values + 1000).astype(numpy.float32)
    figures = {
        "made_with": {"scikit-learn": sklearn.__version__, "numpy": numpy.__version__},
        "classification": [
            classification("five classes with ties", quarters(count, 5), of_five, sizes, 5, top=(1, 2, 3)),
            classification("a class that is nowhere", biased, absent, sizes, 5, top=(2,)),
            classification("a class that is only predicted", predicted_only, absent, sizes, 5, top=(4,)),
            classification("two classes, two outputs", quarters(count, 2), of_two, sizes, 2, top=()),
            classification("two classes, one output", quarters(count, 1), of_two, sizes, 2),
            classification("one class of two", quarters(9, 2), numpy.ones(9, int), [5, 4], 2),
            classification("equal outputs", numpy.zeros((9, 3)), numpy.arange(9) % 3, [8, 1], 3, top=(1, 2)),
        ],
        "positive": positive_classes(generator.integers(-6, 7, (40, 2)) / 4, generator.integers(0, 2, 40)),
        "regression": [
            regression("one number", near[:, :1], values[:, :1], sizes),
            regression("three numbers", near, values, sizes),
            regression("a constant target", near, constant, sizes),
            regression("a constant target that is met", exact, constant, sizes),
            regression("far from zero", (near + 1000).astype(numpy.float32), far, sizes),
        ],
    }
    json.dump(figures, sys.stdout)
    print()


main()
